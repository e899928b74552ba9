/**
 * Reading of safetensors files: eight bytes with the length of a JSON header, the header, the data.
 * Files are untrusted: every tensor is asked for with its type and shape, and must lie in the file.
 */

const ARRAYS = {
  F32: Float32Array,
  I32: Int32Array,
  I16: Int16Array,
  U16: Uint16Array,
  I8: Int8Array,
  U8: Uint8Array,
} as const;

export type TensorType = keyof typeof ARRAYS;
export type TensorArray<T extends TensorType> = InstanceType<(typeof ARRAYS)[T]>;

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

const MAX_HEADER_BYTES = 1_000_000;

/** An error that names what is wrong with a file. */
export class FileError extends Error {}

/** A safetensors file in memory. */
export class TensorFile {
  private readonly entries: Record<string, Entry>;
  private readonly start: number;
  /** The JSON of the metadata entry `vasa3d`. */
  readonly header: Record<string, unknown>;

  constructor(private readonly bytes: ArrayBuffer) {
    if (bytes.byteLength < 8) throw new FileError("the file is cut off");
    const length = Number(new DataView(bytes).getBigUint64(0, true));
    if (length > MAX_HEADER_BYTES || 8 + length > bytes.byteLength) {
      throw new FileError("this is no file of vasa3d");
    }
    try {
      const text = new TextDecoder().decode(new Uint8Array(bytes, 8, length));
      const { __metadata__: metadata, ...entries } = JSON.parse(text);
      this.header = JSON.parse(metadata.vasa3d);
      this.entries = entries;
    } catch {
      throw new FileError("this is no file of vasa3d");
    }
    this.start = 8 + length;
  }

  /** Length of a tensor's first axis. */
  count(name: string): number {
    return this.entry(name).shape[0] ?? 0;
  }

  /** A tensor's values; `shape` holds -1 where any length will do. */
  get<T extends TensorType>(name: string, type: T, shape: number[]): TensorArray<T> {
    const entry = this.entry(name);
    const fits =
      entry.shape.length === shape.length &&
      shape.every((want, axis) => want === -1 || want === entry.shape[axis]);
    if (entry.dtype !== type || !fits) {
      throw new FileError(
        `${name} is ${entry.dtype} [${entry.shape}], expected ${type} [${shape}]`,
      );
    }
    const kind = ARRAYS[type];
    const size = entry.shape.reduce((a, b) => a * b, 1);
    const [from, to] = entry.data_offsets;
    if (from < 0 || to - from !== size * kind.BYTES_PER_ELEMENT) {
      throw new FileError(`${name} has another size than its shape`);
    }
    if (this.start + to > this.bytes.byteLength) throw new FileError("the file is cut off");
    // Copied, since nothing says that a tensor starts at a multiple of its type's size.
    return new kind(this.bytes.slice(this.start + from, this.start + to)) as TensorArray<T>;
  }

  private entry(name: string): Entry {
    const entry = this.entries[name];
    if (!entry) throw new FileError(`${name} is missing`);
    return entry;
  }
}
