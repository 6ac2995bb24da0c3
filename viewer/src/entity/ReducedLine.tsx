/** A long line as minima and maxima, which become elements where one looks closer. */

import {
  DataCurve,
  DefaultInteractions,
  type DimensionMapping,
  type Domain,
  extendDomain,
  getDomain,
  ResetZoomButton,
  TooltipMesh,
  useCameraState,
  useVisCanvasContext,
  VisCanvas,
} from "@h5web/lib";
import { useEffect, useMemo, useState } from "react";
import type { DatasetReader, LinePoints } from "./reading";
import { useLatest } from "./useLatest";

/** How long the view stays where it is before it is refined, in milliseconds. */
const REFINE_AFTER_MS = 150;

interface Props {
  readonly reader: DatasetReader;
  readonly mapping: DimensionMapping;
  readonly length: number;
  readonly label: string;
  readonly onFactor: (factor: number) => void;
}

export function ReducedLine({ reader, mapping, length, label, onFactor }: Props) {
  const overview = useLatest(
    (signal) => reader.readLine(mapping, [0, length], signal),
    [reader, mapping, length],
  );
  const domain = useMemo(
    () => overview && extendDomain(getDomain(overview.ordinates) ?? [0, 1], 0.05),
    [overview],
  );
  if (overview === undefined || domain === undefined) {
    return <p role="status">Reading {label}…</p>;
  }
  return (
    <figure className="reduced-figure" aria-label={`${label}, reduced`}>
      <VisCanvas
        abscissaConfig={{ visDomain: [0, length - 1], isIndexAxis: true, showGrid: true }}
        ordinateConfig={{ visDomain: domain, showGrid: true, label }}
      >
        <DefaultInteractions />
        <ResetZoomButton />
        <Curve reader={reader} mapping={mapping} overview={overview} onFactor={onFactor} />
      </VisCanvas>
    </figure>
  );
}

interface CurveProps {
  readonly reader: DatasetReader;
  readonly mapping: DimensionMapping;
  readonly overview: LinePoints;
  readonly onFactor: (factor: number) => void;
}

function Curve({ reader, mapping, overview, onFactor }: CurveProps) {
  const { getVisibleDomains } = useVisCanvasContext();
  const visible = useCameraState(
    (camera) => getVisibleDomains(camera).xVisibleDomain,
    [getVisibleDomains],
    (before, now) => before[0] === now[0] && before[1] === now[1],
  );
  const points = useRefined(reader, mapping, overview, visible);
  // WebGL knows no custom properties of CSS.
  const color = getComputedStyle(document.documentElement).getPropertyValue("--line-color").trim();
  useEffect(() => onFactor(points.factor), [points.factor, onFactor]);
  return (
    <>
      <DataCurve abscissas={points.abscissas} ordinates={points.ordinates} color={color || "#1b6ea8"} />
      <TooltipMesh guides="vertical" renderTooltip={(x) => describePoint(points, x)} />
    </>
  );
}

/** Return the overview, or points of the visible part once these are there. */
function useRefined(
  reader: DatasetReader,
  mapping: DimensionMapping,
  overview: LinePoints,
  [least, most]: Domain,
): LinePoints {
  const [detail, setDetail] = useState<LinePoints>();
  const margin = (most - least) / 2;
  const start = Math.max(overview.start, Math.floor(least - margin));
  const stop = Math.min(overview.stop, Math.ceil(most + margin) + 1);
  const isWhole = stop - start >= (overview.stop - overview.start) / 2 || overview.factor === 1;
  const isCovered =
    detail !== undefined &&
    detail.start <= Math.max(overview.start, least) &&
    detail.stop >= Math.min(overview.stop, most) &&
    (detail.factor === 1 || detail.stop - detail.start <= 2 * (stop - start));

  useEffect(() => setDetail(undefined), [overview]);
  useEffect(() => {
    if (isWhole || isCovered) {
      return undefined;
    }
    // Reads of places that were left would keep the service from the one that is looked at.
    const controller = new AbortController();
    const { signal } = controller;
    const timer = setTimeout(() => {
      reader.readLine(mapping, [start, stop], signal).then(
        (points) => !signal.aborted && setDetail(points),
        // The overview stays: it is not wrong, only coarse.
        () => undefined,
      );
    }, REFINE_AFTER_MS);
    return () => {
      controller.abort();
      clearTimeout(timer);
    };
  }, [reader, mapping, start, stop, isWhole, isCovered]);
  return isWhole || !isCovered || detail === undefined ? overview : detail;
}

function describePoint({ start, stop, factor, ordinates }: LinePoints, x: number) {
  const bin = Math.floor((x - start + (factor === 1 ? 0.5 : 0)) / factor);
  const [least, most] = [ordinates[2 * bin], ordinates[2 * bin + 1]];
  if (least === undefined || most === undefined) {
    return undefined;
  }
  const first = start + bin * factor;
  return factor === 1 ? (
    <>
      {first}: <strong>{least}</strong>
    </>
  ) : (
    <>
      {first} to {Math.min(stop, first + factor) - 1}: <strong>{least}</strong> to{" "}
      <strong>{most}</strong>
    </>
  );
}
