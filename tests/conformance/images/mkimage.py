#!/usr/bin/env python3
"""Packs directories as the layers of one OCI image, reproducibly.

usage: mkimage.py OUTDIR REF ROOTFS [ROOTFS...] [--entrypoint X]* [--cmd X]* [--user U] [--env K=V]* [--label K=V]* [--port N]*
Writes OUTDIR/blobs/sha256/*, OUTDIR/refs.json (what registry.py serves) and OUTDIR/NAME-TAG.tar (an OCI layout that
`rk image import` and `ctr images import` read). A layer is made once: its digest is remembered beside its directory.
"""
import argparse
import hashlib
import io
import json
import os
import pathlib
import tarfile

MEDIA = "application/vnd.oci.image."


def put(blobs, data):
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"digest": "sha256:" + digest, "size": len(data)}


def layer(blobs, root):
    """One uncompressed tar of everything below `root`, with fixed times and sorted names."""
    known = root.with_name(root.name + ".layer")
    if known.exists():
        made = json.loads(known.read_text())
        if (blobs / made["digest"].split(":")[1]).exists():
            return made

    def fixed_time(entry):
        entry.mtime = 1700000000
        return entry

    draft = blobs / ".layer"
    with tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as tar:
        for folder, folders, files in os.walk(root):
            folders.sort()
            for name in sorted(files) + folders:
                inside = os.path.relpath(os.path.join(folder, name), root)
                if inside.split("/")[0] in ("proc", "sys", "dev") and "/" in inside:
                    continue
                tar.add(os.path.join(folder, name), arcname=inside, recursive=False, filter=fixed_time)
    with open(draft, "rb") as tar:
        digest = hashlib.file_digest(tar, "sha256").hexdigest()
    made = {"digest": "sha256:" + digest, "size": draft.stat().st_size}
    draft.rename(blobs / digest)
    known.write_text(json.dumps(made))
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("ref")
    parser.add_argument("rootfs", nargs="+", type=pathlib.Path)
    for option in ("entrypoint", "cmd", "env", "label", "port"):
        parser.add_argument("--" + option, action="append", default=[])
    parser.add_argument("--user", default="")
    args = parser.parse_args()
    blobs = args.out / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    layers = [layer(blobs, root) for root in args.rootfs]
    config = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *args.env], "WorkingDir": "/"}
    if args.entrypoint:
        config["Entrypoint"] = args.entrypoint
    if args.cmd:
        config["Cmd"] = args.cmd
    if args.user:
        config["User"] = args.user
    if args.label:
        config["Labels"] = dict(label.split("=", 1) for label in args.label)
    if args.port:
        config["ExposedPorts"] = {port + "/tcp": {} for port in args.port}
    made_by = {"created": "2026-01-01T00:00:00Z", "created_by": "mkimage"}
    image = put(blobs, json.dumps({
        "created": made_by["created"], "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [one["digest"] for one in layers]}, "history": [made_by] * len(layers)}).encode())
    manifest = put(blobs, json.dumps({
        "schemaVersion": 2, "mediaType": MEDIA + "manifest.v1+json", "config": {"mediaType": MEDIA + "config.v1+json", **image},
        "layers": [{"mediaType": MEDIA + "layer.v1.tar", **one} for one in layers]}).encode())

    refs_file = args.out / "refs.json"
    refs = json.loads(refs_file.read_text()) if refs_file.exists() else {}
    refs[args.ref] = manifest
    refs_file.write_text(json.dumps(refs, indent=1))

    index = json.dumps({"schemaVersion": 2, "mediaType": MEDIA + "index.v1+json", "manifests": [{
        "mediaType": MEDIA + "manifest.v1+json", "platform": {"os": "linux", "architecture": "amd64"},
        "annotations": {"io.containerd.image.name": args.ref}, **manifest}]}).encode()
    target = args.out / (args.ref.split("/")[-1].replace(":", "-") + ".tar")
    draft = target.with_suffix(".draft")
    with tarfile.open(draft, "w") as tar:
        for name, data in (("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", index)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for blob in dict.fromkeys(one["digest"].split(":")[1] for one in [*layers, image, manifest]):
            tar.add(blobs / blob, arcname="blobs/sha256/" + blob)
    draft.rename(target)
    print(args.ref, manifest["digest"][:19], sum(one["size"] for one in layers) >> 20, "MiB")


main()
