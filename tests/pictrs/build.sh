#!/bin/sh
# Builds pict-rs 0.5.24 from crates.io into the cache, once, with the programs it calls beside it.
# Prints the folder that holds `pict-rs` (and `magick`, where the system has only ImageMagick 6) as its last line.
#
#   sh tests/pictrs/build.sh
#
# Takes about 8 minutes on two cores the first time, nothing after that. Needs cargo. As root it installs the
# missing Debian packages (exiftool, ffmpeg, ImageMagick); otherwise it says which ones to install.
set -eu

version=0.5.24
root="${XDG_CACHE_HOME:-$HOME/.cache}/fediwarden/pict-rs-$version"
bin="$root/bin"

say() { printf 'build.sh: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# ImageMagick 6's own programs. Debian's alternatives come first because `convert` on a PATH may be anything.
im6() {
    for program in "/usr/bin/$1-im6.q16" "/usr/bin/$1-im6.q16hdri" "/usr/bin/$1-im6"; do
        if [ -x "$program" ]; then
            printf '%s\n' "$program"
            return 0
        fi
    done
    program=$(command -v "$1") || return 1
    "$program" -version 2>/dev/null | grep -q 'ImageMagick 6' || return 1
    printf '%s\n' "$program"
}

missing_packages() {
    command -v exiftool >/dev/null || printf 'libimage-exiftool-perl '
    command -v ffmpeg >/dev/null || printf 'ffmpeg '
    if ! command -v magick >/dev/null && ! im6 convert >/dev/null; then printf 'imagemagick '; fi
}

packages=$(missing_packages)
if [ -n "$packages" ]; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        say "installing $packages"
        # shellcheck disable=SC2086  # a list of words
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages >&2 || {
            apt-get update >&2
            DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages >&2
        }
        packages=$(missing_packages)
    fi
    [ -z "$packages" ] || die "pict-rs needs these packages: $packages(install them, then run this again)"
fi

if ! "$bin/pict-rs" --version 2>/dev/null | grep -q "$version"; then
    # rustup puts cargo here and tells only login shells.
    command -v cargo >/dev/null || PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    command -v cargo >/dev/null || die "building pict-rs needs cargo (Debian: apt-get install cargo, or rustup)"
    say "building pict-rs $version into $root (about 8 minutes on two cores)"
    cargo install pict-rs --version "$version" --locked --root "$root" >&2
fi

# pict-rs calls ImageMagick 7's one program; ImageMagick 6 has a program for each verb, with the same arguments.
if ! command -v magick >/dev/null; then
    convert=$(im6 convert) || die "no ImageMagick: install the package imagemagick"
    identify=$(im6 identify) || die "ImageMagick 6 lacks its program identify: install the package imagemagick"
    cat >"$bin/magick.new" <<WRAPPER
#!/bin/sh
case "\$1" in
    convert) shift; exec $convert "\$@" ;;
    identify) shift; exec $identify "\$@" ;;
    *) exec $convert "\$@" ;;
esac
WRAPPER
    chmod 755 "$bin/magick.new"
    mv "$bin/magick.new" "$bin/magick"
fi

printf '%s\n' "$bin"
