# Set-up shared by the commands beside it; sourced, never run. Brings a Debian 12 machine and a clone to the point where
# the build directory is current:
#
#   setup_parse "$@"           --yes, --help; sets ASSUME_YES
#   setup_system PACKAGE...    Debian packages: asks, installs, or prints the one command to give
#   setup_venv FILE...         .venv with the Python packages of the named requirement files
#   setup_build                build/ configured and compiled; nothing unchanged is rebuilt
#
# What is there already is left alone, so a second start costs about a second.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
BUILD=$ROOT/build
ASSUME_YES=no
BUILD_PACKAGES="gcc libc6-dev pkg-config python3 python3-dev python3-venv libopenblas-dev liblapacke-dev libdnnl-dev libsleef-dev"
TEST_PACKAGES="libcunit1-dev clang clang-format libclang-rt-14-dev"

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }

setup_missing() {
    local package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || printf '%s ' "$package"
    done
}

setup_system() {
    command -v dpkg-query >/dev/null || { say "no dpkg here: make sure you have the equivalents of: $*"; return 0; }
    local missing command answer
    missing=$(setup_missing "$@")
    [ -n "$missing" ] || return 0
    command="apt-get install -y --no-install-recommends ${missing% }"
    say "Spool needs these system packages: ${missing% }"
    if [ "$(id -u)" != 0 ]; then
        die "not root: run this once, then start again:
  sudo sh -c 'apt-get update && $command'"
    fi
    if [ "$ASSUME_YES" = no ] && [ -t 0 ]; then
        read -r -p "Install them now with apt-get? [y/N] " answer
        case $answer in [yY]*) ;; *) die "nothing installed; the command is: $command" ;; esac
    fi
    say "installing ..."
    { apt-get update && DEBIAN_FRONTEND=noninteractive $command; } >"$ROOT/.apt.log" 2>&1 ||
        { tail -n 20 "$ROOT/.apt.log" >&2; die "apt-get failed; its whole output is in .apt.log"; }
    rm -f "$ROOT/.apt.log"
}

# The first interpreter that Spool supports and that can make virtual environments.
setup_python() {
    local candidate
    for candidate in ${SPOOL_PYTHON:-python3 /usr/bin/python3}; do
        "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 13))' \
            2>/dev/null && { command -v "$candidate"; return 0; }
    done
    die "no Python 3.9 to 3.13 with the venv module found; set SPOOL_PYTHON to one"
}

setup_venv() {
    local python file stamp
    [ -x "$VENV/bin/python" ] || {
        python=$(setup_python) || exit 1
        say "making .venv with $python ..."
        "$python" -m venv "$VENV" || die "could not make .venv"
    }
    for file in "$@"; do
        stamp=$VENV/.$(basename "$file").done
        cmp -s "$file" "$stamp" && continue
        say "installing Python packages of ${file#"$ROOT"/} ..."
        setup_pip "$file"
        cp "$file" "$stamp"
    done
    export PATH=$VENV/bin:$PATH
}

# Packages after the line "# without dependencies" are data carriers: their own requirements stay out.
setup_pip() {
    local log=$VENV/pip.log carriers
    carriers=$(sed '1,/^# without dependencies/d' "$1")
    {
        setup_pip_install -r <(sed '/^# without dependencies/,$d' "$1") &&
            { [ -z "$carriers" ] || setup_pip_install --no-deps $carriers; }
    } >"$log" 2>&1 || { tail -n 20 "$log" >&2; die "pip failed; its whole output is in .venv/pip.log"; }
}

setup_pip_install() {
    "$VENV/bin/python" -m pip install -q --disable-pip-version-check "$@"
}

# setup_build [DIR [meson options]]
setup_build() {
    local dir=${1:-$BUILD}
    [ $# -gt 0 ] && shift
    if [ ! -f "$dir/build.ninja" ]; then
        meson setup "$dir" "$ROOT" -Dpython="$VENV/bin/python" "$@" >"$dir.log" 2>&1 ||
            { tail -n 30 "$dir.log" >&2; die "meson setup failed"; }
        rm -f "$dir.log"
    fi
    if ! ninja -C "$dir" -n | grep -q 'no work to do'; then
        say "building ${dir#"$ROOT"/} ..."
        ninja -C "$dir" >"$dir/ninja.log" 2>&1 || { tail -n 40 "$dir/ninja.log" >&2; die "the build failed"; }
    fi
}

setup_package() {
    export PYTHONPATH=$BUILD/bindings/python${PYTHONPATH:+:$PYTHONPATH}
}
