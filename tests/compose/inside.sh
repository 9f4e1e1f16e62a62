# What the compose lab runs in its namespaces: inside.sh PYTHON [PYTEST_ARGUMENTS...]
python=$1
shift
ENGINE_COMMAND=podman "$python" -m pytest -m compose tests/compose "$@"
