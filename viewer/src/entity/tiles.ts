/** An image as tiles of several resolutions, each reduced by the service when it is first seen. */

import { getLayerSizes, type Size, TilesApi } from "@h5web/lib";
import ndarray, { type NdArray, type TypedArray } from "ndarray";
import type { Vector2 } from "three";

/** Points along each side of a tile: one is a quarter of a megabyte, in float32. */
const TILE_SIZE: Size = { width: 256, height: 256 };

export type Tile = NdArray<Float32Array>;

/** A half-open range of rows or columns. */
export type Span = readonly [start: number, stop: number];

/** Reads the elements of some rows and columns, reduced to a number of points along each. */
export type ReadTile = (rows: Span, columns: Span, points: Size) => Promise<NdArray<TypedArray>>;

type Loading = { tile?: Tile; error?: unknown; promise: Promise<void> };

/**
 * The tiles of one image. The layer with the greatest index has every element; each one before
 * has half as many points along each axis, and the first one is a single tile.
 */
export class ImageTiles extends TilesApi {
  private readonly loading = new Map<string, Loading>();

  constructor(
    image: Size,
    private readonly readTile: ReadTile,
  ) {
    super(TILE_SIZE, getLayerSizes(image, TILE_SIZE));
  }

  /** Return a tile. Throws a promise until it is there, as React's `Suspense` expects. */
  get(layer: number, offset: Vector2): Tile {
    const key = `${layer}/${offset.x}/${offset.y}`;
    let found = this.loading.get(key);
    if (found === undefined) {
      const begun: Loading = { promise: Promise.resolve() };
      begun.promise = this.read(layer, offset.x, offset.y).then(
        (tile) => {
          begun.tile = tile;
        },
        (error: unknown) => {
          begun.error = error;
        },
      );
      this.loading.set(key, begun);
      found = begun;
    }
    if (found.error !== undefined) {
      throw found.error;
    }
    if (found.tile === undefined) {
      throw found.promise;
    }
    return found.tile;
  }

  /** Return the one tile that shows all of the image. */
  async readOverview(): Promise<Tile> {
    return this.read(0, 0, 0);
  }

  private async read(layer: number, x: number, y: number): Promise<Tile> {
    const { width, height } = this.layerSizes[layer] ?? this.baseLayerSize;
    const points = {
      width: Math.min(TILE_SIZE.width, width - x),
      height: Math.min(TILE_SIZE.height, height - y),
    };
    const factor = 2 ** (this.baseLayerIndex - layer);
    const { width: columns, height: rows } = this.baseLayerSize;
    const values = await this.readTile(
      [y * factor, Math.min(rows, (y + points.height) * factor)],
      [x * factor, Math.min(columns, (x + points.width) * factor)],
      points,
    );
    return ndarray(Float32Array.from(values.data), [points.height, points.width]);
  }
}
