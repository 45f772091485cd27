#!/usr/bin/env python3
"""Writes dashboards/*.json for Grafana 10 and later: run it after a change here. With --check it only says which
files differ from what it would write.

A dashboard is a list of rows, a row a title and a list of panels; the places in Grafana's grid of 24 columns follow
from the order. Every panel has a description, a unit and a legend.
"""

import json
import os
import sys

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dashboards")
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COORDINATOR = '{job="tundra-coordinator"}'
WIDTH = 24
NO_GPU = "no GPU exporter"
# GPUs on the hosts of workers; one may hold several workers.
ON_WORKERS = "and on (node) tundra_worker_connected"


def colors(steps):
    """Grafana's form of ((None, "green"), (0.8, "red")): the color from each value on."""
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}


def targets(queries):
    return [{"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
            for i, (expr, legend) in enumerate(queries)]


def series(title, description, unit, *queries, width=8, stack=False, limits=None, top=None, empty=None):
    """Curves. `queries`: (expression, legend); `limits`: as for colors(), drawn as lines."""
    custom = {"fillOpacity": 10, "showPoints": "never", "spanNulls": False,
              "stacking": {"mode": "normal" if stack else "none"}}
    defaults = {"unit": unit, "min": 0, "custom": custom}
    if limits:
        custom["thresholdsStyle"] = {"mode": "dashed"}
        defaults["thresholds"] = colors(limits)
    if top is not None:
        defaults["max"] = top
    if empty:
        defaults["noValue"] = empty
    return {"type": "timeseries", "title": title, "description": description, "datasource": SOURCE,
            "gridPos": {"w": width, "h": 8}, "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom", "calcs": []},
                        "tooltip": {"mode": "multi", "sort": "desc"}},
            "targets": targets(queries)}


def number(title, description, unit, expr, limits=((None, "text"),), width=4, empty=None):
    """The latest value, large."""
    defaults = {"unit": unit, "thresholds": colors(limits), "color": {"mode": "thresholds"}}
    if empty:
        defaults["noValue"] = empty
    return {"type": "stat", "title": title, "description": description, "datasource": SOURCE,
            "gridPos": {"w": width, "h": 4}, "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                        "colorMode": "value", "graphMode": "none", "textMode": "value"},
            "targets": targets([(expr, title)])}


def text(title, content, height=5):
    return {"type": "text", "title": title, "gridPos": {"w": WIDTH, "h": height},
            "options": {"mode": "markdown", "content": content}}


def place(rows):
    """The panels of all rows with ids and places."""
    placed, y = [], 0
    for title, panels in rows:
        placed.append({"type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        y += 1
        x = height = 0
        for panel in panels:
            size = panel["gridPos"]
            if x + size["w"] > WIDTH:
                x, y, height = 0, y + height, 0
            panel["gridPos"] = {"x": x, "y": y, **size}
            x, height = x + size["w"], max(height, size["h"])
            placed.append(panel)
        y += height
    for number_, panel in enumerate(placed, 1):
        panel["id"] = number_
    return placed


def dashboard(name, title, description, rows, variables=()):
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {
        "uid": f"tundra-{name}", "title": f"Tundra: {title}", "description": description, "tags": ["tundra"],
        "schemaVersion": 39, "version": 1, "editable": True, "graphTooltip": 1, "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"}, "timezone": "browser",
        "templating": {"list": [source, *variables]},
        "links": [{"type": "dashboards", "title": "Tundra", "tags": ["tundra"], "asDropdown": False,
                   "includeVars": True, "keepTime": True, "targetBlank": False, "icon": "external link", "url": ""}],
        "annotations": {"list": [{"name": "Alerts", "enable": True, "iconColor": "red", "datasource": SOURCE,
                                  "expr": 'ALERTS{alertname=~"Tundra.*", alertstate="firing"}',
                                  "titleFormat": "{{alertname}}"}]},
        "panels": place(rows)}


def quantile(q, metric, by="", window="5m"):
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket[{window}])))"


GOOD_IF_ONE = ((None, "red"), (1, "green"), (2, "red"))
GOOD_IF_ZERO = ((None, "green"), (1, "red"))
GOOD_IF_SOME = ((None, "red"), (1, "green"))


def fleet():
    return dashboard("fleet", "fleet and queue", "What leads, runs, waits and fails; calls, store, volumes.", [
        ("Now", [
            number("Leaders", "Coordinators that serve: one.", "none", "sum(tundra_leader)", GOOD_IF_ONE),
            number("Workers connected", "With an open session.", "none", 'sum(tundra_workers{state="connected"})',
                   GOOD_IF_SOME),
            number("Jobs that run", "In the state RUNNING.", "none", 'sum(tundra_jobs{state="RUNNING"})'),
            number("Devices asked for", "By jobs in the queue.", "none", "sum(tundra_queue_devices)"),
            number("Stalled jobs", "They run, and make no step.", "none", "sum(tundra_stalled_jobs)", GOOD_IF_ZERO),
            number("Alerts", "That fire now.", "none",
                   'count(ALERTS{alertname=~"Tundra.*", alertstate="firing"}) or vector(0)', GOOD_IF_ZERO)]),
        ("Jobs and queue", [
            series("Jobs by state", "All jobs that the store holds and that have not ended.", "short",
                   ('sum by (state) (tundra_jobs{state!~"SUCCEEDED|FAILED|CANCELLED"})', "{{state}}"), stack=True),
            series("Queue: devices asked for", "The least that jobs in the queue would take.", "short",
                   ("sum(tundra_queue_devices)", "devices")),
            series("Queue: age of the oldest job", "An alert fires beyond an hour.", "s",
                   ("max(tundra_queue_oldest_seconds)", "age"), limits=((None, "green"), (3600, "red"))),
            series("Jobs that ended", "In an hour, by how.", "short",
                   ('sum by (state) (delta(tundra_jobs{state=~"SUCCEEDED|FAILED|CANCELLED"}[1h]))', "{{state}}")),
            series("Failed jobs by reason", "In an hour.", "short",
                   ("sum by (reason) (increase(tundra_job_failures_total[1h]))", "{{reason}}"), stack=True),
            series("Reports of old attempts", "Refused, in a quarter of an hour. An alert fires beyond 100.", "short",
                   ("sum(increase(tundra_fenced_writes_total[15m]))", "reports"),
                   limits=((None, "green"), (100, "red")))]),
        ("Workers", [
            series("Workers by state", "As the coordinator sees them.", "short",
                   ("sum by (state) (tundra_workers)", "{{state}}"), stack=True),
            series("Ranks by state", "Processes of all workers.", "short",
                   ("sum by (state) (tundra_worker_ranks)", "{{state}}"), stack=True),
            series("Bases kept by ranks", "Bytes of slices, by worker.", "bytes",
                   ("sum by (instance) (tundra_base_resident_bytes)", "{{instance}}"), stack=True),
            series("Versions", "Processes by version; one line but for upgrades.", "short",
                   ("count by (version) (tundra_build_info)", "{{version}}"))]),
        ("Coordinator", [
            series("Calls a second", "By status code.", "reqps",
                   ("sum by (code) (rate(tundra_rpc_duration_seconds_count[5m]))", "{{code}}"), stack=True),
            series("Calls: 99th percentile", "By method; streams last as long as they are open.", "s",
                   ("tundra:rpc_seconds:p99_5m", "{{method}}")),
            series("Calls: errors of the service's own", "Share of all calls.", "percentunit",
                   ("tundra:rpc_errors:ratio5m", "errors"), limits=((None, "green"), (0.05, "red"))),
            series("Store: 99th percentile of a transaction", "Every acknowledgement waits for one.", "s",
                   ("tundra:commit_seconds:p99_5m", "commit"), limits=((None, "green"), (1, "red"))),
            series("Volumes: free part", "Of the file systems with data folders. An alert fires below a tenth.",
                   "percentunit", ("tundra_volume_available_bytes / (tundra_volume_size_bytes > 0)", "{{instance}}"),
                   limits=((None, "red"), (0.1, "green")), top=1),
            series("Certificates: time left", "An alert fires below fourteen days.", "s",
                   ("tundra_cert_expiry_timestamp_seconds - time()", "{{instance}}"),
                   limits=((None, "red"), (1209600, "green")), empty="no TLS")])])


def training():
    web = {"name": "web", "type": "textbox", "label": "Web page", "query": "http://127.0.0.1:7702",
           "current": {"text": "http://127.0.0.1:7702", "value": "http://127.0.0.1:7702"}}
    why = ("Curves of one job (loss, validation loss, learning rate, gradient norm, tokens per second, samples) are on "
           "the [web page](${web}), from the API, or with `tundra metrics JOB`. They are not here on purpose: with a "
           "job in a label each job would add series for ever, and Prometheus keeps samples at its own times, not one "
           "a step. Below is how all jobs together are computed: where the time of a step goes.")
    return dashboard("training", "training", "How steps are computed, over all jobs.", [
        ("Curves of one job", [text("Where they are", why)]),
        ("Throughput", [
            series("Tokens per second", "That became durable, and as workers lead them: more where steps are done "
                   "once more.", "short", ("tundra:tokens:rate5m", "durable"),
                   ('sum by (instance) (rate(tundra_tokens_total{job="tundra-worker"}[5m]))', "{{instance}}")),
            series("Steps per second", "That became durable.", "short", ("tundra:steps:rate5m", "steps")),
            series("Skipped steps", "For gradients that were not finite, in a quarter of an hour.", "short",
                   ("sum by (instance) (increase(tundra_nonfinite_steps_total[15m]))", "{{instance}}"),
                   limits=((None, "green"), (10, "red")))]),
        ("A step", [
            series("Mean time of a step, by phase", "On a rank. weights_wait: until the base's next part is there.",
                   "s", ("tundra:step_phase_seconds:mean5m", "{{phase}}"), width=12, stack=True),
            series("95th percentile by phase", "On a rank.", "s",
                   (quantile(0.95, "tundra_step_duration_seconds", "phase"), "{{phase}}"), width=12)]),
        ("Between ranks", [
            series("Time in reductions", "Of a step, on a rank. Much more at the 95th percentile than in the middle: "
                   "ranks wait for slow ones.", "s", (quantile(0.5, "tundra_allreduce_duration_seconds"), "50 %"),
                   (quantile(0.95, "tundra_allreduce_duration_seconds"), "95 %")),
            series("Who waits least", "Mean time in reductions by worker: the one with the least is waited for.", "s",
                   ("sum by (instance) (rate(tundra_allreduce_duration_seconds_sum[5m])) / "
                    "(sum by (instance) (rate(tundra_allreduce_duration_seconds_count[5m])) > 0)", "{{instance}}")),
            series("Waiting for slices", "Of a step, on ranks that gather the base from others.", "s",
                   (quantile(0.5, "tundra_gather_wait_seconds"), "50 %"),
                   (quantile(0.95, "tundra_gather_wait_seconds"), "95 %"), empty="nothing is gathered"),
            series("Bytes a second", "Reduced gradients, those of passes that were redone, and gathered slices.",
                   "Bps", ("sum(rate(tundra_allreduce_bytes_total[5m]))", "reduced"),
                   ("sum(rate(tundra_redone_allreduce_bytes_total[5m]))", "redone"),
                   ("sum(rate(tundra_gather_bytes_total[5m]))", "gathered")),
            series("Redone passes", "Share of reduced bytes; gradients that jump by powers of two make it grow.",
                   "percentunit", ("tundra:redone_bytes:ratio1h", "redone")),
            series("Collectives that broke", "Ranks in half an hour, by reason.", "short",
                   ("sum by (reason) (increase(tundra_collective_aborts_total[30m]))", "{{reason}}"), stack=True)])])


def goodput():
    return dashboard("goodput", "goodput and recovery", "What of the given device time became steps that last.", [
        ("Now", [
            number("Goodput", "Useful part of the device time that jobs held, in an hour. The rest is loading, "
                   "preparing, validating, saving, and what was lost.", "percentunit", "tundra:goodput:ratio1h",
                   ((None, "red"), (0.5, "yellow"), (0.9, "green")), width=6, empty="no job in an hour"),
            number("Steps done once more", "Share, in an hour.", "percentunit", "tundra:replayed_steps:ratio1h",
                   ((None, "green"), (0.02, "yellow"), (0.1, "red")), width=6, empty="no step in an hour"),
            number("Recoveries", "In an hour.", "none", "sum(increase(tundra_recovery_duration_seconds_count[1h]))",
                   width=6),
            number("Checkpoint age", "The oldest of the jobs that run: what a loss would cost.", "s",
                   "max(tundra_checkpoint_oldest_age_seconds)", ((None, "green"), (3600, "red")), width=6)]),
        ("Device time", [
            series("Devices held, and at useful work", "Device seconds a second.", "short",
                   ("sum(rate(tundra_device_seconds_total[5m]))", "held"),
                   ("sum(rate(tundra_useful_device_seconds_total[5m]))", "useful"), width=12),
            series("Goodput", "Useful part, over an hour.", "percentunit", ("tundra:goodput:ratio1h", "goodput"),
                   width=12, top=1)]),
        ("Losses", [
            series("Time to recover", "From a noticed loss to the job's next step, over an hour. The promise is ten "
                   "seconds where the base is warm.", "s", (quantile(0.5, "tundra_recovery_duration_seconds",
                                                                     window="1h"), "50 %"),
                   ("tundra:recovery_seconds:p95_1h", "95 %"), limits=((None, "green"), (10, "yellow"))),
            series("Recoveries", "In an hour.", "short",
                   ("sum(increase(tundra_recovery_duration_seconds_count[1h]))", "recoveries")),
            series("Steps done once more", "In an hour.", "short",
                   ("sum(increase(tundra_replayed_steps_total[1h]))", "steps")),
            series("Time to make room", "From the wish to pause or preempt a job to its state being on disk, over an "
                   "hour. The promise is a step and a second.", "s",
                   ("tundra:preemption_seconds:p95_1h", "95 %"), empty="nothing was paused"),
            series("Collectives that broke", "Ranks in an hour, by reason.", "short",
                   ("sum by (reason) (increase(tundra_collective_aborts_total[1h]))", "{{reason}}"), stack=True)]),
        ("Checkpoints", [
            series("95th percentile by stage", "Training waits for the snapshot alone; restore is part of a recovery.",
                   "s", ("tundra:checkpoint_seconds:p95_1h", "{{stage}}")),
            series("Failures by stage", "In an hour.", "short",
                   ("sum by (stage) (increase(tundra_checkpoint_failures_total[1h]))", "{{stage}}"), stack=True),
            series("Age of the oldest last checkpoint", "Of the jobs that run.", "s",
                   ("max(tundra_checkpoint_oldest_age_seconds)", "age"), limits=((None, "green"), (3600, "red")))])])


def tenants():
    return dashboard("tenants", "tenants and quotas", "Who uses what. Tenants beyond the first hundred are `other`.", [
        ("Use", [
            series("Tokens per second", "Durable ones, by tenant.", "short",
                   (f"sum by (tenant) (rate(tundra_tokens_total{COORDINATOR}[5m]))", "{{tenant}}"), width=12,
                   stack=True),
            series("Devices held", "Device seconds a second, by tenant.", "short",
                   ("sum by (tenant) (rate(tundra_device_seconds_total[5m]))", "{{tenant}}"), width=12, stack=True),
            series("Device hours in a day", "The ten tenants with most.", "h",
                   ("topk(10, sum by (tenant) (increase(tundra_device_seconds_total[1d]))) / 3600", "{{tenant}}"),
                   width=12),
            series("Goodput", "Useful part of the device time that each held, over an hour.", "percentunit",
                   ("tundra:tenant_goodput:ratio1h", "{{tenant}}"), width=12, top=1)]),
        ("Queue and limits", [
            series("Queue: devices asked for", "By tenant.", "short",
                   ("sum by (tenant) (tundra_queue_devices)", "{{tenant}}"), stack=True),
            series("Quotas", "Used part of each limit.", "percentunit",
                   ("max by (tenant, resource) (tundra_quota_used_ratio)", "{{tenant}} {{resource}}"),
                   limits=((None, "green"), (0.8, "yellow"), (1, "red")), empty="no quotas are set"),
            series("Refused credentials", "Calls in ten minutes, by reason. An alert fires beyond 50.", "short",
                   ("sum by (reason) (increase(tundra_auth_failures_total[10m]))", "{{reason}}"), stack=True,
                   limits=((None, "green"), (50, "red")), empty="none was refused")])])


def gpus():
    def gpu(title, description, unit, metric, factor="", top=None, limits=None):
        return series(title, description, unit, (f"({metric}{factor}) {ON_WORKERS}", "{{node}} {{gpu}}"), top=top,
                      limits=limits, empty=NO_GPU)

    why = ("From [NVIDIA's DCGM exporter](https://github.com/NVIDIA/dcgm-exporter) on the workers' hosts, joined to "
           "workers by the label `node`: GPUs of other hosts are left out. `deploy/monitoring/README.md` says how "
           "the label is set. Workers without GPUs show in the last row alone.")
    return dashboard("gpus", "GPUs", "The cards of the workers, as NVIDIA's exporter sees them.", [
        ("GPUs", [
            text("Where this comes from", why, height=4),
            number("GPUs of workers", "That an exporter sees.", "none", f"count(DCGM_FI_DEV_GPU_UTIL {ON_WORKERS})",
                   width=6, empty=NO_GPU),
            number("Mean use", "Of all of them.", "percentunit", f"avg(DCGM_FI_DEV_GPU_UTIL {ON_WORKERS}) / 100",
                   width=6, empty=NO_GPU),
            number("Power", "Of all of them.", "watt", f"sum(DCGM_FI_DEV_POWER_USAGE {ON_WORKERS})", width=6,
                   empty=NO_GPU),
            number("With an error", "GPUs whose last XID is not 0.", "none",
                   f"sum((DCGM_FI_DEV_XID_ERRORS {ON_WORKERS}) > bool 0)", GOOD_IF_ZERO, width=6, empty=NO_GPU)]),
        ("Work", [
            gpu("Use", "Time in which any kernel ran.", "percentunit", "DCGM_FI_DEV_GPU_UTIL", " / 100", top=1),
            gpu("Tensor cores", "Time in which they worked.", "percentunit", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", top=1),
            gpu("Memory traffic", "Time in which memory was read or written.", "percentunit",
                "DCGM_FI_PROF_DRAM_ACTIVE", top=1),
            gpu("Memory in use", "By everything on the card.", "percentunit", "DCGM_FI_DEV_FB_USED",
                " / (DCGM_FI_DEV_FB_USED + DCGM_FI_DEV_FB_FREE)", top=1),
            gpu("Clock", "Of the multiprocessors: a card that throttles falls behind the others.", "hertz",
                "DCGM_FI_DEV_SM_CLOCK", " * 1e6"),
            series("Use against goodput", "Busy cards with little goodput compute what is thrown away.",
                   "percentunit", (f"avg(DCGM_FI_DEV_GPU_UTIL {ON_WORKERS}) / 100", "use of GPUs"),
                   ("tundra:goodput:ratio1h", "goodput"), top=1)]),
        ("Health", [
            gpu("Temperature", "Of the chip.", "celsius", "DCGM_FI_DEV_GPU_TEMP",
                limits=((None, "green"), (85, "red"))),
            gpu("Power", "Drawn by a card.", "watt", "DCGM_FI_DEV_POWER_USAGE"),
            gpu("Last XID error", "NVIDIA's number of the error; 0 for none.", "none", "DCGM_FI_DEV_XID_ERRORS",
                limits=((None, "green"), (1, "red")))]),
        ("Tundra's account of device memory, CPUs included", [
            series("Held of bases", "Slices, units gathered from others, weights laid out; all workers.", "bytes",
                   ('sum by (kind) (tundra_device_memory_bytes{kind!="total"})', "{{kind}}"), width=12, stack=True),
            series("Held part, by worker", "Of what its devices have. Activations and adapters come on top.",
                   "percentunit",
                   ('sum by (instance) (tundra_device_memory_bytes{kind!="total"}) / '
                    'sum by (instance) (tundra_device_memory_bytes{kind="total"} > 0)', "{{instance}}"), width=12,
                   top=1)])])


def files():
    """Name -> text of each dashboard."""
    made = {"fleet": fleet(), "training": training(), "goodput": goodput(), "tenants": tenants(), "gpus": gpus()}
    return {f"{name}.json": json.dumps(board, indent=1, ensure_ascii=False) + "\n" for name, board in made.items()}


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit("usage: make_dashboards.py [--check]")
    wanted = files()
    differ = []
    for name in sorted({*wanted, *os.listdir(FOLDER)}):
        path = os.path.join(FOLDER, name)
        there = None
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                there = file.read()
        if there == wanted.get(name):
            continue
        differ.append(name)
        if check:
            continue
        if name not in wanted:
            os.remove(path)
            continue
        with open(path, "w", encoding="utf-8") as file:
            file.write(wanted[name])
    if check and differ:
        sys.exit(f"not what {os.path.basename(__file__)} writes: {', '.join(differ)}; run it")


if __name__ == "__main__":
    main()
