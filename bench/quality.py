"""How good the denoisers are, in decibels and seconds, over folders of pictures.

    python bench/quality.py SET12 SET14 [--methods nlm tv ...] [--models WEIGHTS ...]
    python bench/quality.py SET12 SET14 --recipes
    python bench/quality.py W2S-8bit FMD-sample S95-repeated --real [--models WEIGHTS ...]

By default clean pictures get noise of a fixed seed, and every method gets them. `--recipes` holds
zero-shot's fast recipe against the paper's on the centres of eight pictures. `--real` takes
microscopy, photographs and repeated captures, laid out as their folders are published, against the
mean of many captures.

Each figure is kept in bench/results/quality.json when it is measured; a run that was stopped goes
on where it was. What is kept holds for the same noisy picture and the same code of the method;
`--methods builtin --others` measures one method, and takes of all others what is kept, whatever has
changed since: the commits beside the table say when that was; `--methods` without names measures
`--models` alone. With `--turns N` what is measured has a row of its own. At the end RESULTS.md gets
the table, README.md its means, and bench/results the plot.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from itertools import chain, cycle
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import numpy as np
import tables
from matplotlib.figure import Figure
from quality_cache import Cache, Contender
from quality_scenes import RECIPE_PICTURES, RECIPE_SIDE, SEED, SEEN, Scene, real, with_noise

from pydenoise import benchmark, comparison

NOISES = ("gauss:15", "gauss:25", "gauss:50", "poisson:30")
REAL = ("builtin", "zero-shot")
SHOWN = ("gauss:25", "poisson:30")
RECIPES = ("zero-shot", "zero-shot-paper")
RECIPE_NOISES = ("gauss:25", "poisson:30")
T = TypeVar("T")
COLOURS = ("#c0392b", "#e59866", "#7d3c98", "#2c6fbb", "#7fb3e0", "#1e7d4f", "#b7950b", "#566573")


# --- figures ------------------------------------------------------------------------------------


def measured(
    cache: Cache,
    contenders: Sequence[Contender],
    scenes: Sequence[Scene],
    others: Iterable[str] = (),
) -> dict[str, list[dict[str, Any]]]:
    """For each contender that is here what it made of the scenes; what is kept is not repeated.

    `others` are titles whose figures are taken as they are kept.
    """
    found = {}
    for contender in contenders:
        if comparison.reason_missing(contender.method):
            continue
        wanted = [scene for scene in scenes if not cache.holds(contender, scene)]
        pictures = ((scene.noisy, scene.clean) for scene in wanted)
        made = comparison.measure(contender.method, pictures, *contender[1:])
        for scene, figures in zip(wanted, made, strict=True):
            cache.keep(contender, scene, figures._asdict())
            print(
                f"  {contender.title}, {scene.name} {scene.noise}: {figures.psnr:.2f} dB, "
                f"{figures.seconds:.1f} s",
                file=sys.stderr,
                flush=True,
            )
        found[contender.title] = [cache.figures(contender.title, scene) for scene in scenes]
    for title in sorted(set(others) - found.keys()):
        found[title] = [cache.figures(title, scene) for scene in scenes]
    return {title: found[title] for title in sorted(found, key=place)}


def place(title: str) -> tuple[int, bool, str]:
    """Rows stand in the order of `comparison.METHODS`, with turns behind, then models by name."""
    names = list(comparison.METHODS.values())
    name = title.split(", turns: ")[0]
    return names.index(name) if name in names else len(names), title not in names, title


def noisy_figures(scenes: Sequence[Scene]) -> list[dict[str, Any]]:
    scores = [comparison.score(scene.noisy, scene.clean) for scene in scenes]
    return [{"psnr": psnr, "ssim": ssim} for psnr, ssim in scores]


def mean(figures: Sequence[dict[str, Any]], name: str) -> float:
    return fmean(entry[name] for entry in figures)


def environment(cache: Cache) -> str:
    where = benchmark.environment()
    threads = f"{where['threads']} thread{'s' if where['threads'] > 1 else ''}"
    return (
        f"{where['cpu']}, {threads}, {where['isa']}; torch {where['torch']}, scikit-image "
        f"{version('scikit-image')}; pydenoise at {', '.join(cache.commits())}; seed {SEED}."
    )


def in_folder(figures: Sequence[T], scenes: Sequence[Scene], folder: str) -> list[T]:
    """Those of one folder's scenes."""
    return [each for each, scene in zip(figures, scenes, strict=True) if scene.folder == folder]


def compare_methods(cache: Cache, contenders: Sequence[Contender], options: Any) -> dict[str, str]:
    """Every contender over every folder and noise, as a table for each folder; draws the plot."""
    by_noise = {
        noise: list(with_noise(options.folders, noise))[: options.first] for noise in options.noise
    }
    others = cache.titles(list(chain(*by_noise.values()))) if options.others else ()
    results: dict[str, dict[str, list[dict[str, Any]]]] = {
        noise: {"noisy": noisy_figures(scenes), **measured(cache, contenders, scenes, others)}
        for noise, scenes in by_noise.items()
    }
    draw(options.results / "quality.png", results)
    titles = ["", *(f"{noise}: dB / SSIM" for noise in options.noise), "seconds each", "peak MB"]
    parts = [environment(cache)]
    folders = list(dict.fromkeys(scene.folder for scene in by_noise[options.noise[0]]))
    for folder in folders:
        rows = []
        for title in results[options.noise[0]]:
            columns = [
                in_folder(results[noise][title], scenes, folder)
                for noise, scenes in by_noise.items()
            ]
            row = [f"{mean(column, 'psnr'):.2f} / {mean(column, 'ssim'):.3f}" for column in columns]
            rows.append([title, *row, *costs(list(chain(*columns)))])
        for contender in contenders:
            reason = comparison.reason_missing(contender.method)
            if reason and contender.title not in others:
                rows.append([f"{contender.title}: {reason}", *[""] * (len(titles) - 1)])
        pictures = sum(scene.folder == folder for scene in by_noise[options.noise[0]])
        parts.append(f"**{folder}**, {pictures} pictures\n\n{tables.table(titles, rows)}")
        parts += without_seen(folder, by_noise, results)
    return {
        "quality": "\n\n".join(parts),
        "quality-means": mean_psnr(cache, folders, by_noise, results),
    }


def mean_psnr(
    cache: Cache,
    folders: Sequence[str],
    scenes: dict[str, list[Scene]],
    results: dict[str, dict[str, list[dict[str, Any]]]],
) -> str:
    """The means of the noises that README.md shows."""
    shown = [(folder, noise) for folder in folders for noise in SHOWN if noise in results]
    rows = []
    for title in next(iter(results.values())):
        columns = [
            in_folder(results[noise][title], scenes[noise], folder) for folder, noise in shown
        ]
        psnr = [f"{mean(column, 'psnr'):.2f}" for column in columns]
        rows.append([title, *psnr, *costs(list(chain(*columns)))[:1]])
    titles = ["mean PSNR, dB", *(f"{folder}, {noise}" for folder, noise in shown), "seconds each"]
    return f"{environment(cache)}\n\n{tables.table(titles, rows)}"


def without_seen(
    folder: str, scenes: dict[str, list[Scene]], results: dict[str, dict[str, list[dict[str, Any]]]]
) -> list[str]:
    """What the built-in network comes to without the pictures that it has learned from."""
    title = comparison.METHODS["builtin"]
    names = {scene.name for scene in next(iter(scenes.values())) if scene.folder == folder}
    if not names & SEEN or any(title not in found for found in results.values()):
        return []
    means = [
        fmean(
            figures["psnr"]
            for scene, figures in zip(scenes[noise], found[title], strict=True)
            if scene.folder == folder and scene.name not in SEEN
        )
        for noise, found in results.items()
    ]
    seen, left = " and ".join(sorted(names & SEEN)), ", ".join(f"{each:.2f}" for each in means)
    return [
        f"{seen} shows a photograph that the {title} has learned from; without it, the means of "
        f"that network are {left} dB."
    ]


def costs(figures: Sequence[dict[str, Any]]) -> list[str]:
    """Mean seconds and largest peak, where they were measured."""
    if "seconds" not in figures[0]:
        return ["", ""]
    peaks = [entry["peak_mb"] for entry in figures if entry["peak_mb"] is not None]
    return [f"{mean(figures, 'seconds'):.2f}", f"{max(peaks):.0f}" if peaks else ""]


def draw(path: Path, results: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    """PSNR against seconds, means over all pictures, a panel for each noise."""
    figure = Figure(figsize=(4 * len(results) + 2, 4), layout="constrained")
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for axes, (noise, found) in zip(panels, results.items(), strict=True):
        for (title, figures), colour in zip(list(found.items())[1:], cycle(COLOURS), strict=False):
            point = mean(figures, "seconds"), mean(figures, "psnr")
            axes.plot(*point, "o", color=colour, label=title)
        axes.set_xscale("log")
        fastest, slowest = np.log10(axes.get_xlim())
        axes.set_xlim(10 ** np.floor(fastest), 10 ** np.ceil(slowest))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_title(noise, loc="left")
        axes.set_xlabel("seconds for a picture")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("PSNR, dB")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(path, dpi=100)


def compare_recipes(cache: Cache, options: Any) -> dict[str, str]:
    """The fast recipe less the paper's, picture by picture."""
    contenders = [Contender(name) for name in RECIPES]
    scenes = [
        scene
        for noise in RECIPE_NOISES
        for scene in with_noise(options.folders, noise, RECIPE_SIDE)
    ][: options.first]
    if not scenes:
        raise SystemExit(f"--recipes wants the folders {' and '.join(RECIPE_PICTURES)}")
    fast, paper = measured(cache, contenders, scenes).values()
    rows = [
        [
            f"{scene.name}, {scene.noise}",
            *(f"{ours['psnr']:.2f}", f"{theirs['psnr']:.2f}"),
            f"{ours['psnr'] - theirs['psnr']:+.2f}",
            *(f"{ours['seconds']:.1f}", f"{theirs['seconds']:.1f}"),
        ]
        for scene, ours, theirs in zip(scenes, fast, paper, strict=True)
    ]
    means = [mean(figures, name) for name in ("psnr", "seconds") for figures in (fast, paper)]
    rows.append(
        [
            "mean",
            *(f"{means[0]:.2f}", f"{means[1]:.2f}", f"{means[0] - means[1]:+.2f}"),
            *(f"{means[2]:.1f}", f"{means[3]:.1f}"),
        ]
    )
    titles = ["", "fast, dB", "paper, dB", "difference", "fast, s", "paper, s"]
    return {"recipes": f"{environment(cache)}\n\n{tables.table(titles, rows)}"}


def compare_real(cache: Cache, contenders: Sequence[Contender], options: Any) -> dict[str, str]:
    """What is gained on real captures, picture by picture, and in the mean of each folder."""
    scenes = list(real(options.folders))[: options.first]
    noisy = noisy_figures(scenes)
    folders = list(dict.fromkeys(scene.folder for scene in scenes))
    known = [cache.titles(in_folder(scenes, scenes, folder)) for folder in folders]
    others = set().union(*known) if options.others else ()
    found = measured(cache, contenders, scenes, others)
    rows, means = [], []
    for folder in folders:
        here = [index for index, scene in enumerate(scenes) if scene.folder == folder]
        groups = [(f"{scenes[index].name}", [index]) for index in here]
        for name, group in [*groups, (f"**{folder}, mean**", here)]:
            before = fmean(noisy[index]["psnr"] for index in group)
            after = [[figures[index] for index in group] for figures in found.values()]
            rows.append([name, f"{before:.2f}", *(gain(figures, before) for figures in after)])
        means.append([f"{folder}, {len(here)} captures", *rows[-1][1:]])
    titles = ["", "noisy, dB", *(f"{title}, dB (gain)" for title in found)]
    return {
        name: f"{environment(cache)}\n\n{tables.table(titles, lines)}"
        for name, lines in {"real": rows, "real-means": means}.items()
    }


def gain(figures: Sequence[dict[str, Any]], before: float) -> str:
    """Mean PSNR, and what is gained on that before; empty where one was not measured."""
    if not all(figures):
        return ""
    return f"{mean(figures, 'psnr'):.2f} ({mean(figures, 'psnr') - before:+.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--recipes", action="store_true", help="fast against paper, eight pictures")
    mode.add_argument("--real", action="store_true", help="captures against the mean of many")
    names = [name for name in comparison.METHODS if name != "model"]
    parser.add_argument(
        "--methods", nargs="*", choices=names, help="all, or our own for --real; may be none"
    )
    parser.add_argument(
        "--others", action="store_true", help="also show what is kept of others, as it is"
    )
    parser.add_argument("--models", type=Path, nargs="+", default=[], metavar="WEIGHTS")
    parser.add_argument(
        "--turns", type=int, choices=range(1, 9), help="of a picture, for all that is measured"
    )
    parser.add_argument("--noise", nargs="+", default=NOISES)
    parser.add_argument("--first", type=int, help="pictures to stop after")
    parser.add_argument("--results", type=Path, default=tables.RESULTS)
    options = parser.parse_args()
    if options.recipes and options.others:
        parser.error("--recipes compares two methods; --others has no place there")
    usual = RECIPES if options.recipes else REAL if options.real else names
    methods = usual if options.methods is None else options.methods
    if not (methods or options.models or options.others):
        parser.error("--methods without names needs --models or --others")
    if options.turns is not None and (options.recipes or {*methods} - {*comparison.WITH_TURNS}):
        others = ", ".join(name for name in methods if name not in comparison.WITH_TURNS)
        parser.error(f"--turns is not for {others or '--recipes'}; name others with --methods")
    options.results.mkdir(parents=True, exist_ok=True)
    cache = Cache(options.results / "quality.json")
    contenders = [Contender(name, None, options.turns) for name in methods]
    contenders += [Contender("model", path, options.turns) for path in options.models]
    if options.recipes:
        texts = compare_recipes(cache, options)
    elif options.real:
        texts = compare_real(cache, contenders, options)
    else:
        texts = compare_methods(cache, contenders, options)
    for name, text in texts.items():
        print(text)
        if options.results == tables.RESULTS and options.first is None:
            tables.fill(name, text)


if __name__ == "__main__":
    main()
