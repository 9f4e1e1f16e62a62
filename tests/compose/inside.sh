# What the compose lab runs in its namespaces: inside.sh PYTHON [PYTEST_ARGUMENTS...]
python=$1
shift
COMPOSE_COMMAND=docker-compose ENGINE_COMMAND=podman "$python" -m pytest -m compose tests/compose "$@"
