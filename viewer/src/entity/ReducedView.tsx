/** What is drawn of a dataset that is too large for h5web: a view of few points, which says so. */

import type { Fetcher } from "@h5web/app";
import {
  DimensionMapper,
  type DimensionMapping,
  initDimMapping,
  ToggleGroup,
} from "@h5web/lib";
import { useMemo, useState } from "react";

import { formatSize } from "../format";
import { ReducedImage } from "./ReducedImage";
import { ReducedLine } from "./ReducedLine";
import { DatasetReader } from "./reading";
import { countElements, type DatasetSize, formatShape } from "./sizes";
import { TextRows } from "./TextRows";

interface Props {
  readonly fetcher: Fetcher;
  readonly base: string;
  readonly file: string;
  readonly dataset: DatasetSize;
  /** That of the dataset, or what it has grown to since. */
  readonly shape: readonly number[];
  /** Whether the newest frame is shown, whichever the reader had chosen. */
  readonly isFollowing: boolean;
}

export function ReducedView(props: Props) {
  const { fetcher, base, file, dataset, isFollowing } = props;
  const { path, isNumeric } = dataset;
  const shape = useMemo(() => [...props.shape], [props.shape.join()]);
  const reader = useMemo(
    () => new DatasetReader(fetcher, base, file, path),
    [fetcher, base, file, path],
  );
  const [kind, setKind] = useState(shape.length > 1 ? "Image" : "Line");
  const isImage = kind === "Image";
  const [factor, setFactor] = useState<number>();
  const [chosen, setMapping] = useState(() => initDimMapping(shape, isImage ? 2 : 1));
  const mapping = useMemo(
    () => (isFollowing ? takeNewest(chosen, shape) : chosen),
    [chosen, shape, isFollowing],
  );
  const label = path.slice(path.lastIndexOf("/") + 1);

  function choose(next: string) {
    setKind(next);
    setMapping(initDimMapping(shape, next === "Image" ? 2 : 1));
    setFactor(undefined);
  }

  const lengthOf = (axis: "x" | "y") => shape[mapping.indexOf(axis)] ?? 1;
  return (
    <section className="reduced" aria-label={`Reduced view of ${path}`}>
      <header className="reduced-head">
        <p role="status">
          {isFollowing && describeNewest(mapping, shape)}
          {formatSize(countElements(shape) * dataset.itemBytes)} ({formatShape(shape)}):{" "}
          {isNumeric ? explain(isImage, factor) : "some rows at a time"}
        </p>
        {isNumeric && shape.length > 1 && (
          <ToggleGroup role="radiogroup" ariaLabel="View as" value={kind} onChange={choose}>
            <ToggleGroup.Btn label="Image" value="Image" />
            <ToggleGroup.Btn label="Line" value="Line" />
          </ToggleGroup>
        )}
      </header>
      <div className="reduced-body">
        {isNumeric && shape.length > 1 && (
          <DimensionMapper dims={shape} dimMapping={mapping} onChange={setMapping} />
        )}
        <div className="reduced-plot">
          {!isNumeric && <TextRows reader={reader} shape={shape} />}
          {isNumeric && isImage && (
            <ReducedImage
              reader={reader}
              mapping={mapping}
              rows={lengthOf("y")}
              columns={lengthOf("x")}
              label={label}
            />
          )}
          {isNumeric && !isImage && (
            <ReducedLine
              reader={reader}
              mapping={mapping}
              length={lengthOf("x")}
              label={label}
              onFactor={setFactor}
            />
          )}
        </div>
      </div>
    </section>
  );
}

/** Return the mapping with the last frame of the axis that datasets grow along, the first one. */
function takeNewest(mapping: DimensionMapping, shape: number[]): DimensionMapping {
  const [first, ...others] = mapping;
  return typeof first === "number" ? [Math.max(0, (shape[0] ?? 1) - 1), ...others] : mapping;
}

function describeNewest(mapping: DimensionMapping, shape: number[]): string {
  const first = mapping[0];
  return typeof first === "number" ? `Frame ${first} of 0 to ${(shape[0] ?? 1) - 1}. ` : "";
}

function explain(isImage: boolean, factor?: number): string {
  if (isImage) {
    return "drawn as few points as the screen shows; zoom in to see its elements";
  }
  if (factor === 1) {
    return "every element of this part is drawn";
  }
  const many = factor === undefined ? "many" : factor.toLocaleString("en");
  return `each point is the minimum and maximum of ${many} elements; zoom in to see them`;
}
