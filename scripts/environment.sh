# Sourced by quickstart.sh and test.sh: makes a virtual environment and installs the package into it.
# make_environment FOLDER [EXTRAS]; EXTRAS is a pip extras suffix such as [test]. Sets $python.

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.10 python; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null \
            && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.10 or newer is needed; set PYTHON=/path/to/python3" >&2
    return 1
}

make_environment() {
    local folder=$1 extras=${2:-} base
    base=$(find_python) || exit 2
    python="$folder/bin/python"
    [ -x "$python" ] || "$base" -m venv "$folder"
    "$python" -m pip install --quiet --disable-pip-version-check --upgrade pip
    "$python" -m pip install --quiet --disable-pip-version-check --editable ".$extras"
}
