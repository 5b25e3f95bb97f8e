#!/usr/bin/env bash
# Runs on-premise.yaml for real: a head and a worker, each with a network, processes, a /tmp and a home of its own, sshd
# and nothing else in common but a directory for the store; then `ray up`, `ray submit` of a study of seconds, `ray exec`
# and `ray down`. All of it is on this machine and is gone at the end, but for DIR with the store and the cluster file.
#
#   sudo PYTHON=.venv/bin/python clusters/try_over_ssh.sh [DIR]    # DIR: new, not below /tmp
#
# Debian or Ubuntu; root, for the namespaces. sshd and rsync are unpacked into DIR, nothing is installed. Processes of
# Ray that run on this machine already are not seen and not touched, but Ray's own tools would see two clusters: stop it.
set -euo pipefail

PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
NETWORK=10.77.0
say() { printf '\n$ %s\n' "$*"; "$@"; }

unpack() { # sshd and rsync, and one key for everything
    mkdir -p "$DIR"/{debs,root,bin,shared/text}
    (cd "$DIR/debs" && apt-get download -q openssh-server openssh-sftp-server rsync libpopt0 libwrap0 2>&1 | grep -v "^W:")
    for deb in "$DIR"/debs/*.deb; do dpkg -x "$deb" "$DIR/root"; done
    local libraries="$DIR/root/usr/lib/$(uname -m)-linux-gnu:$DIR/root/lib/$(uname -m)-linux-gnu"
    for program in usr/sbin/sshd usr/bin/rsync; do
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libraries" "$DIR/root/$program" >"$DIR/bin/${program##*/}"
    done
    chmod +x "$DIR"/bin/*
    ssh-keygen -q -t ed25519 -N '' -f "$DIR/key"
    install -m 600 "$DIR/key.pub" "$DIR/authorized"
    cp "$PROJECT"/harness/*.py "$DIR/shared/text"
}

environment() { # PATH: a virtual environment with all that PYTHON's has; an install would take minutes
    "$PYTHON" -m venv --without-pip "$1"
    local here there
    here=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    there=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "import site; site.addsitedir('$there')" >"$here/all.pth"
    printf '#!%s\nfrom ray.scripts.scripts import main\nmain()\n' "$1/bin/python" >"$1/bin/ray"
    chmod +x "$1/bin/ray"
}

machine() { # NAME ADDRESS: its namespaces, its home, sshd
    local name=$1 address=$2 home=$DIR/$1
    mkdir -p "$home"
    environment "$home/venv"
    touch "$home/.bashrc"
    printf 'export PATH=%s:$PATH\n. ~/.bashrc\n' "$DIR/bin" >"$home/.profile"
    sed "s#^root:.*#root:x:0:0:root:$home:/bin/bash#" /etc/passwd >"$DIR/$name.passwd"
    grep -q ^sshd: "$DIR/$name.passwd" || echo 'sshd:x:100:65534::/run/sshd:/usr/sbin/nologin' >>"$DIR/$name.passwd"
    unshare --mount --pid --net --uts --fork --mount-proc --kill-child bash -euc "
        test \$(ls -d /proc/[0-9]* | wc -l) -lt 10 # only its own processes, or \`ray stop\` would reach further
        hostname $name
        mount --bind $DIR/$name.passwd /etc/passwd
        mount -t tmpfs tmpfs /tmp && mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /dev/shm && mkdir /run/sshd
        exec $DIR/bin/sshd -D -e -f /dev/null -h $DIR/key -o AuthorizedKeysFile=$DIR/authorized \
            -o StrictModes=no -o PermitRootLogin=yes -o UsePAM=no -o PidFile=none \
            -o SetEnv=PATH=$DIR/bin:/usr/local/bin:/usr/bin:/bin" >"$DIR/$name.log" 2>&1 &
    local inside
    until inside=$(pgrep -P $!); do sleep 0.1; done
    ip link add "$name" type veth peer name eth0 netns "$inside"
    ip link set "$name" master bridge up
    nsenter -t "$inside" -n sh -c "ip link set lo up && ip addr add $address/24 dev eth0 && ip link set eth0 up \
        && ip route add default via $NETWORK.254"
}

cluster_file() { # on-premise.yaml, filled in
    "$PYTHON" - "$PROJECT" "$DIR" "$NETWORK" <<'END'
import sys, yaml
project, directory, network = sys.argv[1:]
config = yaml.safe_load(open(f"{project}/clusters/on-premise.yaml"))
config["provider"] |= {"head_ip": f"{network}.1", "worker_ips": [f"{network}.2"]}
config["auth"] = {"ssh_user": "root", "ssh_private_key": f"{directory}/key"}
config |= {"min_workers": 1, "max_workers": 1}
config["file_mounts"]["~/tiny.py"] = f"{directory}/tiny.py"
commands = [c.replace("/mnt/nca/store", f"{directory}/shared/store") for c in config["setup_commands"]]
commands = [c.replace("CPU=32,GPU=8", "CPU=1") for c in commands if "pip install" not in c]
config["setup_commands"] = [c.replace("export PATH", "export PYTHONPATH=~/study\nexport PATH") for c in commands]
for name in ("head_start_ray_commands", "worker_start_ray_commands"):  # there is no Ray yet
    config[name] = [c for c in config[name] if c != "ray stop"]
config["worker_start_ray_commands"][0] += " --num-cpus=1"
yaml.safe_dump(config, open(f"{directory}/cluster.yaml", "w"))
END
    cat >"$DIR/tiny.py" <<END
"""Does a study run on machines that are reached over ssh?"""
from ray import tune
from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train

MODEL = Llama(depth=1, width=16, heads=2, mlp=24, context=32)
TEXT = Text.local("$DIR/shared/text", tokenizer=BPE(300), held_out=0.2)

def train(source, steps, seed):
    return Train(Corpus(source, seed), steps * 8 * 32, MODEL, Recipe(lr=1e-2, batch=8), seed, Evaluation(4, 16))

def scratch(seed):
    return train(TEXT, 200, seed)

def nca(seed):
    return scratch(seed).after(train(NCA(states=2, grid=4, patch=2), 100, seed))

study = Study("tiny", __doc__, scratch, [nca], {"seed": tune.grid_search([0])})
END
}

inside() { # in namespaces of the client's own: a bridge, the machines, and what a user types
    mount -t tmpfs tmpfs /tmp
    ip link set lo up
    ip link add bridge type bridge && ip addr add $NETWORK.254/24 dev bridge && ip link set bridge up
    ip route add default via $NETWORK.254
    export HOME=$DIR/client RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=disabled PYTHONPATH=$PROJECT
    mkdir -p "$HOME"
    environment "$HOME/venv"
    export PATH=$DIR/bin:$HOME/venv/bin:$PATH
    machine head $NETWORK.1
    machine worker $NETWORK.2
    cluster_file
    cd "$PROJECT"
    say python -m harness cluster "$DIR/cluster.yaml"
    say ray up --yes "$DIR/cluster.yaml"
    say ray submit "$DIR/cluster.yaml" harness/__main__.py -- run tiny.py
    say ray exec "$DIR/cluster.yaml" "python -m harness status tiny.py"
    say ray down --yes "$DIR/cluster.yaml"
}

if [ "${1:-}" = --inside ]; then
    DIR=$2
    inside
else
    DIR=$(realpath -m "${1:-/var/tmp/nca-over-ssh-$$}")
    PYTHON=$(command -v "${PYTHON:-python}")
    PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/${PYTHON##*/}
    export PYTHON
    test ! -e "$DIR" || { echo "error: $DIR = exists: give a new directory" >&2; exit 2; }
    unpack
    exec unshare --mount --pid --net --fork --mount-proc --kill-child "${BASH_SOURCE[0]}" --inside "$DIR"
fi
