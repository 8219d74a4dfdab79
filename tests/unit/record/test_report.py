from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from controller.record.model import Sample
from controller.record.recorder import Recorder
from controller.record.report import write_report
from controller.record.sections import SECTIONS
from tests.unit.record.sample_run import BLACKOUT_S, SampleRun, iridium, manifest_of
from tests.unit.record.test_recorder import JOB, LOAD, RESULT, STEP

VOID = {"meta", "link", "img", "br", "hr", "input", "source", "wbr"}
LOADERS = {"link", "img", "iframe", "object", "embed", "source", "video", "audio", "base", "image", "use"}
ANCHORS = ["round-trips", "links", "map", "jobs", "comparison", "load", "sunlight", "loop", "manifest"]
PAGE_LIMIT_BYTES = 8_000_000


@dataclass
class Page(HTMLParser):
    """A page as parsed: every element must be closed by its own end tag."""

    open_tags: list[str] = field(default_factory=list)
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    scripts: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags, f"</{tag}> closes nothing"
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open_tags and self.open_tags[-1] == "script":
            name = self.elements[-1][1].get("id") or f"script-{len(self.scripts)}"
            self.scripts[name] = self.scripts.get(name, "") + data
        elif self.open_tags and self.open_tags[-1] != "style":
            self.words.append(data)

    @property
    def plots(self) -> dict[str, Any]:
        plots: dict[str, Any] = json.loads(self.scripts["plots"], parse_constant=pytest.fail)
        return plots

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.elements if "id" in attributes]


def parsed(path: Path) -> Page:
    """A page read from a file; it must be well formed."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open_tags == []
    return page


@pytest.fixture(scope="module")
def page(sample_run: SampleRun) -> Page:
    """The whole run's report."""
    return parsed(sample_run.run_dir / "report.html")


@pytest.fixture(scope="module")
def empty_run() -> Callable[[Path], Page]:
    """Writes and parses the report of a run that ended before its first step."""

    def write(run_dir: Path) -> Page:
        timeline, text, _ = iridium()
        recorder = Recorder(run_dir, manifest_of(timeline, text))
        recorder.event("node-lost", 0.0, node="suva", reason="exit status 137")
        recorder.close()
        return parsed(write_report(run_dir, timeline))

    return write


def test_the_page_is_well_formed_with_every_section(page: Page) -> None:
    """Each part of the report is there, in order; no id stands twice; every plot has its place and its data."""
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections == ANCHORS
    assert len(sections) == len(SECTIONS)
    assert len(page.ids()) == len(set(page.ids()))
    slots = {attributes["id"] for tag, attributes in page.elements if attributes.get("class") == "plot"}
    assert slots == set(page.plots)
    assert slots >= {f"plot-{name}" for name in ("rtt-path", "rtt-link", "rtt-error", "links", "map", "contacts")}
    assert slots >= {f"plot-{name}" for name in ("jobs", "comparison", "sunlight", "loop")}


def test_the_page_loads_nothing(sample_run: SampleRun, page: Page) -> None:
    """No element, style or script of ours names an address, and the page's own policy forbids any load."""
    assert not [tag for tag, _ in page.elements if tag in LOADERS]
    for tag, attributes in page.elements:
        assert not (tag == "script" and "src" in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    policy = next(a["content"] or "" for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    ours = (sample_run.run_dir / "report.html").read_text().replace(page.scripts["plotly"], "")
    assert len(ours) < 2_000_000
    assert re.findall(r"https?://|//cdn|@import|url\(|fetch\(|XMLHttpRequest|WebSocket", ours) == []
    assert "showSendToCloud: false" in ours


def test_the_round_trip_plots_show_the_samples(sample_run: SampleRun, page: Page) -> None:
    """Every sample is a point at its time and its measured round trip, over the line that was commanded."""
    drawn: dict[tuple[str, str], dict[float, float | None]] = {}
    for name in ("plot-rtt-path", "plot-rtt-link"):
        for trace in page.plots[name]["data"]:
            if not trace["name"].endswith("no answer"):
                what = "commanded" if trace["name"] == "commanded" else "measured"
                drawn[(trace["legendgroup"], what)] = dict(zip(trace["x"], trace["y"], strict=True))
    pairs = {f"{s.a} – {s.b}" for s in sample_run.samples}
    assert set(drawn) == {(pair, what) for pair in pairs for what in ("commanded", "measured")}
    for sample in sample_run.samples:
        pair = f"{sample.a} – {sample.b}"
        commanded, measured = drawn[(pair, "commanded")][sample.t_s], drawn[(pair, "measured")][sample.t_s]
        assert commanded == (None if sample.commanded_rtt_us is None else pytest.approx(sample.commanded_rtt_us / 1e3))
        assert measured == (None if sample.measured_rtt_us is None else pytest.approx(sample.measured_rtt_us / 1e3))


def test_silent_probes_are_marked(sample_run: SampleRun, page: Page) -> None:
    """A probe without an answer, though a path was commanded, is a cross; one during the blackout is not."""
    crosses = [
        x
        for name in ("plot-rtt-path", "plot-rtt-link")
        for trace in page.plots[name]["data"]
        if trace["name"].endswith("no answer")
        for x in trace["x"]
    ]
    silent = [s.t_s for s in sample_run.samples if s.commanded_rtt_us is not None and s.measured_rtt_us is None]
    assert sorted(crosses) == sorted(silent)
    assert silent


def test_faults_are_shaded(page: Page) -> None:
    """The blackout is a band from its start to its end over round trips, links and jobs."""
    for name in ("plot-rtt-path", "plot-rtt-link", "plot-links", "plot-jobs"):
        bands = {(shape["x0"], shape["x1"]) for shape in page.plots[name]["layout"]["shapes"]}
        assert bands == {BLACKOUT_S}, name


def test_the_links_plot_shows_the_timeline_less_its_faults(sample_run: SampleRun, page: Page) -> None:
    """Usable GSLs drop by one in the blackout; ISLs are those of the timeline."""
    traces = {trace["name"]: trace for trace in page.plots["plot-links"]["data"]}
    timeline = sample_run.timeline
    total = [i + g for i, g in zip(traces["ISLs usable"]["y"], traces["GSLs usable"]["y"], strict=True)]
    dark = [BLACKOUT_S[0] <= t < BLACKOUT_S[1] for t in timeline.t_s]
    assert total == [len(sky.link) - d for sky, d in zip(timeline.skies(), dark, strict=True)]
    assert "In 301 of 301 steps" in " ".join(page.words)


def test_the_jobs_plot_shows_states_and_reasons(page: Page) -> None:
    """Each state is a bar from its start to the next one, with its reasons; each job ends in its mark."""
    traces = {trace["name"]: trace for trace in page.plots["plot-jobs"]["data"]}
    waiting = traces["waiting contact"]
    assert (waiting["base"], waiting["x"]) == ([65.0], [pytest.approx(26.1)])
    assert "beijing is in blackout until 90 s" in waiting["customdata"][0][1]
    assert "41 %" in traces["in transit"]["customdata"][0][1]
    assert sorted(traces["succeeded"]["x"]) == [48.9, 91.2, 99.0]


def test_the_comparison_shows_both_ways(page: Page) -> None:
    """Time to insight and bytes of both ways stand side by side, with the verdict on their findings."""
    times, moved = page.plots["plot-comparison"]["data"]
    assert (times["y"], times["x"]) == (["bent pipe", "in orbit", "bent pipe across a blackout"], [28.9, 7.4, 41.0])
    assert moved["x"] == [24_003_500, 3_500, 24_003_700]
    assert "All ways of searching one scene found the same, byte for byte." in page.words


def test_the_map_moves_without_leaving_the_map(sample_run: SampleRun, page: Page) -> None:
    """Every moment of the slider has a frame; no line of any frame jumps across the map."""
    plot = page.plots["plot-map"]
    steps = [step["args"][0][0] for step in plot["layout"]["sliders"][0]["steps"]]
    assert [frame["name"] for frame in plot["frames"]] == steps
    assert (steps[0], steps[-1]) == ("0", str(len(sample_run.timeline.t_s) - 1))
    lines = [trace for frame in plot["frames"] for trace in frame["data"]] + plot["data"]
    for trace in lines:
        if trace["mode"] == "lines" and trace.get("fill") is None:
            xs = trace["x"]
            assert all(abs(p - q) <= 180 for p, q in pairwise(xs) if None not in (p, q))


def test_the_page_is_one_file_of_bounded_size(sample_run: SampleRun) -> None:
    """plotly.js is in it once, and all the rest is small beside it."""
    path = sample_run.run_dir / "report.html"
    assert path.stat().st_size < PAGE_LIMIT_BYTES
    assert path.read_text().count("* plotly.js v") == 1
    assert not list(sample_run.run_dir.glob("*.part"))


def test_what_is_missing_is_said_in_a_sentence(tmp_path: Path, empty_run: Callable[[Path], Page]) -> None:
    """A run without probes, jobs, workloads or steps has the same sections, and words in place of empty plots."""
    page = empty_run(tmp_path / "run")
    assert [attributes["id"] for tag, attributes in page.elements if tag == "section"] == ANCHORS
    text = " ".join(page.words)
    for sentence in (
        "No probe was sent",
        "No job was submitted",
        "compared no workloads",
        "had no load",
        "recorded no step",
    ):
        assert sentence in text
    assert "suva was lost at 0 s: exit status 137" in text
    assert set(page.plots) == {"plot-links", "plot-map", "plot-contacts", "plot-sunlight"}


def test_words_of_jobs_and_nodes_are_never_markup(tmp_path: Path) -> None:
    """A reason, label or finding with markup in it is shown as it is, and cannot end a script or start an element."""
    hostile = '</script><img src="https://example.org/x.png">&amp;'
    timeline, _, _ = iridium()
    recorder = Recorder(tmp_path / "run", manifest_of(timeline, f'name = "x" # {hostile}\n'))
    recorder.step(STEP)
    recorder.job(replace(JOB, reason=hostile, label=hostile))
    recorder.workload(5.0, replace(RESULT, finding=hostile, way=hostile))
    recorder.load(6.0, replace(LOAD, way=hostile, failures={hostile: 1}))
    recorder.event("fault-on", 1.0, target=hostile, fault="blackout", mode="silent")
    recorder.sample(Sample(1.0, "path", hostile, "b", 2, 10_000, 10_400.0))
    recorder.close()
    page = parsed(write_report(tmp_path / "run", timeline))
    assert not [tag for tag, _ in page.elements if tag in LOADERS]
    assert hostile in page.words
    running = next(trace for trace in page.plots["plot-jobs"]["data"] if trace["name"] == "running")
    assert "<img" not in json.dumps(running)


def test_a_load_is_told_with_its_failures(tmp_path: Path) -> None:
    """Each way has its row of figures and its bar of phases; what went wrong is named, and so are late submissions."""
    timeline, _, _ = iridium()
    recorder = Recorder(tmp_path / "run", manifest_of(timeline, 'name = "x"\n'))
    recorder.load(6.0, LOAD)
    recorder.load(7.0, replace(LOAD, way="bent pipe", late_submissions=2, failures={}))
    recorder.close()
    page = parsed(write_report(tmp_path / "run", timeline))
    for word in ("in orbit", "bent pipe", "3.00 s", "1.2 MB", "in orbit: FAILED: exit status #"):
        assert word in page.words
    assert any("2 jobs came later" in word for word in page.words)
    assert {trace["name"] for trace in page.plots["plot-load"]["data"]} == {"transit", "running"}


def test_a_report_can_be_written_again(sample_run: SampleRun) -> None:
    """The report depends on the record and the timeline alone: written twice, it is the same."""
    path = sample_run.run_dir / "report.html"
    first = path.read_bytes()
    write_report(sample_run.run_dir, sample_run.timeline)
    assert path.read_bytes() == first
