# SPDX-License-Identifier: GPL-2.0-or-later
"""
The rounds. In each round, a job runs on all peers in turn before the next job does, so that other
load of the machine affects all peers alike, and the ratios of a round compare runs that are close
in time. Each round begins with another peer.

After each round with writes, the fusedio peers are unmounted, checked by e2fsck -fn and mounted
again.
"""
import sys
import time
from dataclasses import asdict

import peers as peers_
from devices import KINDS, Workspace
from jobs import Outcome
from proc import Failed, LeftOut, ignore_signals, catch_signals, machine_us


def say(text):
    print(text, file=sys.stderr, flush=True)


class Field:
    """All peers on one kind of device."""

    def __init__(self, kind, keys, args, needs, switch):
        self.kind, self.keys, self.args, self.needs, self.switch = kind, keys, args, needs, switch
        self.space = None
        self.peers = []
        self.left_out = {}
        self.errors = []

    def __enter__(self):
        try:
            self.setup()
        except BaseException:
            self.teardown()
            raise
        return self

    def __exit__(self, *_):
        self.teardown()

    def setup(self):
        plan = peers_.Plan(self.kind, self.args.size, self.needs, self.args.fusedio, self.switch)
        plan.space = self.space = Workspace(self.kind, self.args.dir,
                                            plan.bytes_for(len(self.keys)))
        template = peers_.make_template(plan)
        for key in self.keys:
            peer = peers_.make_peer(key, plan, self.args.variants)
            self.peers.append(peer)
            try:
                peer.setup(template)
            except (LeftOut, Failed) as e:
                self.peers.remove(peer)
                peer.teardown()
                self.left_out[key] = str(e)
                # That fusedio does not mount is an error, not a property of the machine.
                if peer.ours and isinstance(e, Failed):
                    self.errors.append(f"{peer.title}: {e}")
                say(f"bench: {KINDS[self.kind]}: {peer.title} is left out: {e}")
        peers_.remove_file(template)

    def teardown(self):
        ignore_signals()
        for peer in reversed(self.peers):
            try:
                peer.teardown()
            except (Failed, OSError) as e:
                self.errors.append(f"cleaning up: {e}")
        self.peers = []
        if self.space:
            self.space.remove()
        catch_signals()

    def drop(self, peer, why):
        """
        Starts a peer again after a failure; if that fails too, the peer is left out from then on.
        """
        self.errors.append(f"{peer.title}: {why}")
        say(f"bench: {peer.title}: {why}")
        try:
            peer.kill()
            peer.start()
        except (Failed, LeftOut, OSError) as e:
            peer.kill()
            self.peers.remove(peer)
            peer.loop.detach()
            self.left_out[peer.key] = f"failed: {e}"

    def restart(self, peer, check=False):
        peer.stop()
        if check:
            peer.fsck()
        peer.start()

    def check(self):
        for peer in [p for p in self.peers if p.ours]:
            try:
                self.restart(peer, check=True)
            except (Failed, LeftOut, OSError) as e:
                self.drop(peer, e)


def one(field, peer, job, settings):
    """Runs a job on a peer once and returns what was measured."""
    if job.prepare:
        job.prepare(peer, settings)
    if job.cold:
        field.restart(peer)
    daemon, machine, begun = peer.daemon_us(), machine_us(), time.monotonic()
    out: Outcome = job.run(peer, settings)
    wall = time.monotonic() - begun
    machine = max(0.0, machine_us() - machine - out.starts * settings.fio_idle_us)
    after = peer.daemon_us()
    if job.clean:
        job.clean(peer, settings)
    sample = asdict(out)
    sample["daemon_us"] = None if daemon is None else after - daemon
    sample["machine_us"] = machine
    sample["wall_s"] = round(wall, 3)
    return sample


def rounds(field, jobs, settings, args, store, run_id):
    """Runs all rounds; each result goes to store(kind, job, peer, sample) at once."""
    for rnd in range(args.rounds):
        for job in jobs:
            peers = [p for p in field.peers if job.raw or not p.raw]
            turn = rnd % len(peers) if peers else 0
            line = []
            for peer in peers[turn:] + peers[:turn]:
                try:
                    sample = one(field, peer, job, settings)
                except (Failed, LeftOut, OSError) as e:
                    field.drop(peer, f"{job.key}: {e}")
                    continue
                sample["round"] = f"{run_id}.{rnd}"
                store(field.kind, job.key, peer.key, sample)
                line.append(f"{peer.key} {sample['value']:,.0f}")
            say(f"bench: {field.kind}, round {rnd + 1}/{args.rounds}, {job.key}: {', '.join(line)}")
        if any(j.writes for j in jobs):
            field.check()
