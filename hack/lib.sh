# What the commands of hack/ share: times, privileges, packages, the virtual environment. Sourced, never run.
# It must never ask a question, read standard input, or change anything outside the checkout but by apt-get.
# shellcheck shell=bash

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$repo/.venv
# shellcheck disable=SC2034  # for the commands that source this
started_at=$EPOCHREALTIME

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# seconds_since STAMP: with one decimal; EPOCHREALTIME has six, and in some locales a comma.
seconds_since() {
    local us=$((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}))
    printf '%d.%d' $((us / 1000000)) $((us / 100000 % 10))
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

can_be_root() { [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }; }

# install_packages NAME…: Debian's packages, without recommendations; says exactly what to type when it may not.
install_packages() {
    command -v apt-get >/dev/null || fail "this machine has no apt-get; install the equivalents of: $*"
    can_be_root || fail "not root and no password-less sudo; please run: sudo apt-get install --no-install-recommends $*"
    say "installing $*"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq -y install
        --no-install-recommends)
    # The first try fails at once on a machine whose package lists are absent or old.
    as_root "${install[@]}" "$@" </dev/null >/dev/null 2>&1 && return
    as_root apt-get -o DPkg::Lock::Timeout=300 -qq update </dev/null
    as_root "${install[@]}" "$@" </dev/null >/dev/null || fail "apt-get could not install: $*"
}

python_at_least_3_11() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

find_python() {
    local name
    for name in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        if python_at_least_3_11 "$name" && has_venv "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

venv_wanted() { { printf '%s\n' "$repo"; cat "$repo/pyproject.toml" "$repo/hack/constraints.txt"; } | sha256sum; }
venv_fresh() { [ -x "$venv/bin/guestlet" ] && [ "$(cat "$venv/.stamp" 2>/dev/null)" = "$(venv_wanted)" ]; }

# requirements: what pyproject.toml asks for, one a line; pip learned to read dependency groups only with 25.1.
requirements() {
    "$1" - "$repo/pyproject.toml" <<'PYTHON'
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)
groups = project.get("dependency-groups", {})
print(*project["build-system"]["requires"], *project["project"]["dependencies"], *sum(groups.values(), []), sep="\n")
PYTHON
}

# fill_venv FOLDER PIP-OPTION…: a virtual environment with everything but guestlet itself.
fill_venv() {
    local folder=$1 python
    shift
    python=$(find_python) || {
        install_packages python3 python3-venv
        python=$(find_python) || fail "no Python >= 3.11 with the module venv; please install python3 and python3-venv"
    }
    "$folder/bin/python" -c 'import pip' 2>/dev/null || "$python" -m venv --clear "$folder"
    requirements "$folder/bin/python" >"$folder/requirements.txt"
    PIP_DISABLE_PIP_VERSION_CHECK=1 "$folder/bin/python" -m pip install --quiet --no-input "$@" \
        -r "$folder/requirements.txt" </dev/null || fail "pip could not install the dependencies"
}

make_venv() {
    say "making .venv (half a minute)"
    rm -f "$venv/.stamp"
    fill_venv "$venv" -c "$repo/hack/constraints.txt"
    "$venv/bin/python" -m pip install --quiet --no-input --no-deps --no-build-isolation \
        --disable-pip-version-check --editable "$repo" </dev/null || fail "pip could not install guestlet"
    venv_wanted >"$venv/.stamp"
}

# ensure_venv: the virtual environment that pyproject.toml and the constraints describe; immediate when it is there.
ensure_venv() {
    venv_fresh && return
    # The checkout itself is the lock: no file to leave behind, and the subshell's descriptor ends with it.
    (
        flock 9
        venv_fresh || make_venv 9<&-
    ) 9<"$repo" || exit 1
}

# lock_dependencies: exact versions of what pyproject.toml allows today, for reproducible installs.
lock_dependencies() {
    local folder
    folder=$(mktemp -d)
    fill_venv "$folder" --upgrade --upgrade-strategy eager
    {
        say "# Exact versions for reproducible installs: written by hack/check --lock, used by pip install -c."
        "$folder/bin/python" -m pip freeze --all --exclude pip --disable-pip-version-check
    } >"$repo/hack/constraints.txt"
    rm -rf "$folder"
}
