/** A large image as tiles, each as fine as the screen can show where one looks. */

import {
  ColorBar,
  type ColorMap,
  ColorMapSelector,
  type ColorScaleType,
  type CustomDomain,
  DefaultInteractions,
  type DimensionMapping,
  DomainWidget,
  getDomain,
  getVisDomain,
  ResetZoomButton,
  ScaleSelector,
  ScaleType,
  Selector,
  TiledHeatmapMesh,
  TiledTooltipMesh,
  Toolbar,
  useSafeDomain,
  VisCanvas,
} from "@h5web/lib";
import { useMemo, useState } from "react";
import type { DatasetReader, Method } from "./reading";
import { ImageTiles } from "./tiles";
import { useLatest } from "./useLatest";

const METHODS: Method[] = ["mean", "max", "min"];
const SCALES: ColorScaleType[] = [
  ScaleType.Linear,
  ScaleType.Log,
  ScaleType.SymLog,
  ScaleType.Sqrt,
];

interface Props {
  readonly reader: DatasetReader;
  readonly mapping: DimensionMapping;
  readonly rows: number;
  readonly columns: number;
  readonly label: string;
}

export function ReducedImage({ reader, mapping, rows, columns, label }: Props) {
  const [method, setMethod] = useState<Method>("mean");
  const [colorMap, setColorMap] = useState<ColorMap>("Viridis");
  const [isInverted, setIsInverted] = useState(false);
  const [scaleType, setScaleType] = useState<ColorScaleType>(ScaleType.Linear);
  const [customDomain, setCustomDomain] = useState<CustomDomain>([null, null]);

  const tiles = useMemo(
    () => new ImageTiles({ width: columns, height: rows }, reader.makeTileReader(mapping, method)),
    [reader, mapping, method, rows, columns],
  );
  const overview = useLatest(() => tiles.readOverview(), [tiles]);
  const dataDomain = useMemo(
    () => (overview && getDomain(overview.data, { scaleType })) ?? [0, 1],
    [overview, scaleType],
  ) as [number, number];
  const [domain] = useSafeDomain(getVisDomain(customDomain, dataDomain), dataDomain, scaleType);
  const colors = { domain, scaleType, colorMap, invertColorMap: isInverted };

  return (
    <>
      <div className="reduced-tools">
        <Toolbar>
          <DomainWidget
            dataDomain={dataDomain}
            customDomain={customDomain}
            scaleType={scaleType}
            onCustomDomainChange={setCustomDomain}
          />
          <ColorMapSelector
            value={colorMap}
            onValueChange={setColorMap}
            invert={isInverted}
            onInversionChange={() => setIsInverted(!isInverted)}
          />
          <ScaleSelector value={scaleType} onScaleChange={setScaleType} options={SCALES} />
          <Selector
            label="Points are the"
            value={method}
            onChange={(each) => setMethod(each as Method)}
            options={METHODS}
            renderOption={(each) => <>{each}</>}
          />
        </Toolbar>
      </div>
      {overview === undefined ? (
        <p role="status">Reading {label}…</p>
      ) : (
        <figure className="reduced-figure" aria-label={`${label}, reduced`}>
          <VisCanvas
            aspect="equal"
            abscissaConfig={{ visDomain: [0, columns], isIndexAxis: true }}
            ordinateConfig={{ visDomain: [0, rows], isIndexAxis: true }}
          >
            <DefaultInteractions />
            <ResetZoomButton />
            <TiledHeatmapMesh api={tiles} {...colors} />
            <TiledTooltipMesh
              renderTooltip={(x, y, value) => (
                <>
                  x={Math.floor(x)}, y={Math.floor(y)}: <strong>{value}</strong>
                </>
              )}
            />
          </VisCanvas>
          <ColorBar {...colors} withBounds />
        </figure>
      )}
    </>
  );
}
