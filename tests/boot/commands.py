#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every command there is, from the program's own tables: --help, an option that does not exist, too few and too many words, a machine that does
not exist; what is said with --json is JSON, with --quiet is nothing; colours are for terminals. usage: commands.py OSPITE ASM-FOLDER"""
import json, os, re, shutil, signal, subprocess, sys, tempfile

ospite, source = (os.path.realpath(a) for a in sys.argv[1:3])
if not shutil.which("nasm"):
    print("skipped: nasm is not installed")
    sys.exit(77)
work = tempfile.mkdtemp(prefix="commands-")
os.environ["OSPITE_ROOT"] = work + "/root"
os.environ["COLUMNS"] = "100"
done = failed = 0


def run(*words):
    p = subprocess.run([ospite, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, cwd=work)
    return p.returncode, p.stdout, p.stderr


def check(what, ok, got):
    global done, failed
    done += 1
    if not ok:
        failed += 1
        print("FAILED: %s: status %d\n%s%s" % (what, got[0], got[1][-1500:], got[2][-1500:]))


def words(*typed):
    """What may come next."""
    return [line.split("\t")[0] for line in run("completion", "words", "--", *typed)[1].splitlines()]


def refused(what, got):
    lines = got[2].splitlines()
    check(what, got[0] == 125 and len(lines) == 1 and lines[0].startswith("ospite: ") and "\033" not in got[2] and not got[1], got)


def command_lines():
    commands = [w for w in words("") if w not in ("help", "version")]
    assert len(commands) >= 35, commands
    for c in commands:
        verbs = [v for v in words(c, "") if c in ("image", "net", "template") and not v.startswith("@")]
        for line in [[c, v] for v in verbs] or [[c]]:
            yield line


def options_of(line):
    return [w for w in words(*line, "--") if w.startswith("--")]


# what makes a table with --json, with a machine 'one' that runs, a network and an image
TABLES = {
    ("ps",): [], ("info",): ["one"], ("stats",): ["one"], ("doctor",): [], ("engines",): [], ("top",): ["--once"], ("medium",): ["one"],
    ("net", "ls"): [], ("net", "show"): ["lan"], ("template", "list"): [], ("image", "info"): ["disk.qcow2"],
    ("image", "check"): ["disk.qcow2"], ("image", "map"): ["disk.qcow2"], ("image", "snapshot"): ["disk.qcow2"],
    ("image", "bench"): ["disk.qcow2", "--count", "10"], ("events",): None,
}
QUIET = [["pause", "one"], ["resume", "one"], ["start", "two"], ["suspend", "two"], ["resume", "two"], ["kill", "two"], ["clone", "two", "three"],
         ["wait", "--until", "running", "one"], ["rename", "three", "four"], ["rm", "four"], ["net", "create", "other"], ["net", "rm", "other"], ["wait", "two"], ["wait", "--until", "inactive", "two"],
         ["create", "five", "--kernel", "echo.bin"], ["config", "five", "--set", "cpus=2"], ["set", "five", "--memory", "64M"],
         ["image", "convert", "disk.qcow2", "copy.raw"], ["image", "compare", "disk.qcow2", "copy.raw"], ["template", "create", "t", "five"],
         ["template", "rm", "t"], ["rm", "five"]]


def main():
    subprocess.run(["nasm", "-f", "bin", "-o", work + "/echo.bin", source + "/echo.asm"], check=True)
    lines = list(command_lines())
    got = run("completion", "man")
    check("titles of the manual page", got[0] == 0 and "## run FILE" in got[1] and not re.search(r"^#.*\\", got[1], re.M), got)
    with_json = {}
    for line in lines:
        name = " ".join(line)
        got = run(*line, "--help")
        check(name + " --help", got[0] == 0 and got[1].startswith("Usage: ospite " + line[0]) and not got[2] and "\033" not in got[1], got)
        check(name + " --help fits", all(len(text) <= 110 for text in got[1].splitlines()), got)
        if line[0] not in ("completion",):
            refused(name + " --nonsense", run(*line, "--nonsense"))
        options = options_of(line)
        if "--json" in options:
            with_json[tuple(line)] = True
    got = run("help")
    for line in lines:
        check("help names " + line[0], re.search(r"^  %s " % line[0], got[1], re.M), got)
    refused("a command that does not exist", run("strat"))
    # a machine that does not exist, by every command that takes one
    for line in lines:
        usage = run(*line, "--help")[1].splitlines()[0]
        if re.search(r"(NAME|OLD)( |\.|$)", usage) and line[0] not in ("create", "run", "template") and line != ["net", "create"]:
            more = ["x"] * (usage.count("NEW") + usage.count("FILE") + usage.count("KEY...") + usage.count(" ENGINE") + usage.count(" COMMAND"))
            if "[" in usage.split("] ", 1)[-1]:
                more = more[:0] if line[0] not in ("exec", "ctl") else ["x"]
            refused("%s nobody" % " ".join(line), run(*line, "nobody", *more))
    # with something to show
    assert run("create", "one", "--kernel", "echo.bin", "--memory", "8M", "--engine", "interp", "--cdrom", "none")[0] == 0
    assert run("create", "two", "--kernel", "echo.bin", "--memory", "8M", "--engine", "interp")[0] == 0
    assert run("start", "one")[0] == 0 and run("net", "create", "lan")[0] == 0
    assert run("image", "create", "--size", "1M", "disk.qcow2")[0] == 0
    missing = set(with_json) - set(TABLES)
    check("every command with --json is tried: " + str(missing), not missing, (0, "", ""))
    for line, more in TABLES.items():
        if more is None:
            continue
        check("%s has --json" % " ".join(line), line in with_json, (0, "", ""))
        got = run(*line, *more, "--json")
        try:
            value = json.loads(got[1])
        except ValueError:
            value = None
        check("%s --json" % " ".join(line), got[0] == 0 and isinstance(value, (dict, list)) and not got[2], got)
        got = run(*line, *more)
        check("%s for people" % " ".join(line), got[0] == 0 and got[1] and "\033" not in got[1] + got[2], got)
    for line in QUIET:
        got = run(*line, "--quiet")
        check("%s --quiet" % " ".join(line), got[0] == 0 and not got[1] and not got[2], got)
    print("%d command lines, %d checks, %d failed" % (len(lines), done, failed))
    return failed != 0


signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of what is below
try:
    status = main()
finally:
    subprocess.run([ospite, "kill", "--all", "--quiet"], timeout=120, capture_output=True)
    shutil.rmtree(work, ignore_errors=True)
sys.exit(status)
