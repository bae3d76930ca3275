# Sourced by the scripts beside it: makes the virtual environment that they run in.
#
# PYTHON          the interpreter to make it with; without it the first of python3,
#                 python3.14 … python3.11 and python that is new enough
# FACE2VEC_VENVS  the folder that environments go to; without it the repository itself

# Git's shell on Windows has paths of its own kind, /c/Users/…, which Python does not know.
native() {
    if command -v cygpath >/dev/null; then cygpath -m -- "$1"; else printf '%s\n' "$1"; fi
}

repository=$(native "$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")")
venvs=${FACE2VEC_VENVS:-$repository}

say() {
    printf 'face2vec: %s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 3
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# bin_of FOLDER: prints where an environment has its programs: Scripts on Windows, else bin.
bin_of() {
    if [ -d "$1/Scripts" ]; then printf '%s\n' "$1/Scripts"; else printf '%s\n' "$1/bin"; fi
}

# Prints the interpreter to make environments with.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" >/dev/null || fail "PYTHON is '$PYTHON', and there is no such program"
        is_new_enough "$PYTHON" ||
            fail "PYTHON is '$PYTHON', which is $("$PYTHON" --version 2>&1); 3.11 or newer is needed"
        printf '%s\n' "$PYTHON"
        return
    fi
    # On Windows python is the usual name, and python3 may be a stub that opens a shop.
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if is_new_enough "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    if command -v python3 >/dev/null; then
        found="python3 is $(python3 --version 2>&1)"
    else
        found="there is no python3"
    fi
    fail "Python 3.11 or newer is needed and $found." \
        "Install one, or name it: PYTHON=/path/to/python3.11 $0"
}

# make_venv FOLDER EXTRAS: an environment with face2vec and these extras, made at the first
# use, and again when what has to be installed, the interpreter or the folder has changed.
make_venv() {
    venv=$1
    python=$(find_python) || exit
    stamp="$2 $(cat "$repository/setup.py" "$repository/pyproject.toml" | cksum) $venv $(
        "$python" -c 'import sys; print(sys.base_prefix, *sys.version_info[:2])'
    )"
    if [ -f "$venv/face2vec-stamp" ] && [ "$(cat "$venv/face2vec-stamp")" = "$stamp" ]; then
        return
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "'$python' has no venv module. Install it (on Debian and Ubuntu:" \
            "apt install python3-venv), or name another interpreter: PYTHON=python3.12 $0"
    say "installing into $venv; this takes a minute or more, and is done once"
    rm -f "$venv/face2vec-stamp"
    "$python" -m venv --clear "$venv" >&2 || fail "cannot make the environment $venv"
    "$(bin_of "$venv")/python" -m pip install --quiet --disable-pip-version-check --use-pep517 \
        --editable "$repository[$2]" >&2 ||
        fail "the installation failed (see above). Run the same command again to go on"
    printf '%s\n' "$stamp" >"$venv/face2vec-stamp"
    say "installed"
}
