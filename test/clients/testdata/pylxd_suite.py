"""Drives a daemon with pylxd: one function for each of its classes."""
import sys
import threading
import time
import urllib.parse

import pylxd
from pylxd import exceptions

SOCKET, IMAGE = sys.argv[1], sys.argv[2]
CLIENT = pylxd.Client(endpoint="http+unix://" + urllib.parse.quote(SOCKET, safe=""))
DONE = []


def case(function):
    function()
    DONE.append(function.__name__)
    print("ok", function.__name__)


def eventually(claim, what, seconds=20):
    end = time.time() + seconds
    while time.time() < end:
        if claim():
            return
        time.sleep(0.05)
    raise AssertionError("never: " + what)


@case
def client():
    assert CLIENT.trusted
    assert CLIENT.host_info["api_version"] == "1.0"
    assert CLIENT.api.get().json()["metadata"]["environment"]["server"] == "muster"
    assert CLIENT.has_api_extension("storage")


@case
def images():
    with open(IMAGE, "rb") as data:
        made = CLIENT.images.create(data.read(), public=False, wait=True)
    made.add_alias("busybox", "a small image")
    assert CLIENT.images.get_by_alias("busybox").fingerprint == made.fingerprint
    assert CLIENT.images.exists("busybox", alias=True)
    assert [i.fingerprint for i in CLIENT.images.all()] == [made.fingerprint]
    made.properties["note"] = "from pylxd"
    made.save(wait=True)
    assert CLIENT.images.get(made.fingerprint).properties["note"] == "from pylxd"
    with made.export() as exported:
        with open(IMAGE, "rb") as data:
            assert exported.read() == data.read()
    made.add_alias("other", "")
    made.delete_alias("other")


@case
def profiles():
    made = CLIENT.profiles.create("small", config={"limits.processes": "200"}, devices={})
    assert CLIENT.profiles.exists("small")
    made.config["user.note"] = "x"
    made.save()
    assert CLIENT.profiles.get("small").config["user.note"] == "x"
    made.rename("smaller")
    assert "smaller" in [p.name for p in CLIENT.profiles.all()]
    CLIENT.profiles.get("smaller").delete()
    try:
        CLIENT.profiles.get("smaller")
        raise AssertionError("a deleted profile is found")
    except exceptions.NotFound:
        pass


@case
def containers():
    made = CLIENT.containers.create({"name": "p1", "source": {"type": "image", "alias": "busybox"}}, wait=True)
    assert made.status == "Stopped"
    made.start(wait=True)
    made.sync()
    assert made.status == "Running", made.status
    assert made.state().pid > 0
    eventually(lambda: any(a["family"] == "inet" for a in made.state().network["eth0"]["addresses"]), "an address")
    made.freeze(wait=True)
    made.sync()
    assert made.status == "Frozen"
    made.unfreeze(wait=True)
    made.restart(wait=True)
    assert [c.name for c in CLIENT.containers.all()] == ["p1"]
    made.config["user.note"] = "y"
    made.save(wait=True)
    assert CLIENT.containers.get("p1").config["user.note"] == "y"


@case
def execute():
    made = CLIENT.containers.get("p1")
    result = made.execute(["sh", "-c", "echo out; echo err >&2; exit 4"])
    assert (result.exit_code, result.stdout, result.stderr) == (4, "out\n", "err\n"), result
    assert made.execute(["cat"], stdin_payload="typed").stdout == "typed"
    assert made.execute(["sh", "-c", "echo $FOO"], environment={"FOO": "bar"}).stdout == "bar\n"
    for _ in range(20):
        assert made.execute(["echo", "again"]).stdout == "again\n"


@case
def files():
    made = CLIENT.containers.get("p1")
    made.files.put("/root/file", b"content", mode=0o600, uid=3, gid=4)
    assert made.files.get("/root/file") == b"content"
    assert made.execute(["stat", "-c", "%u %g %a", "/root/file"]).stdout == "3 4 600\n"
    assert made.files.delete_available()
    made.files.delete("/root/file")
    try:
        made.files.get("/root/file")
        raise AssertionError("a deleted file is found")
    except exceptions.NotFound:
        pass


@case
def snapshots():
    made = CLIENT.containers.get("p1")
    made.files.put("/root/state", b"one")
    snap = made.snapshots.create("s0", wait=True)
    made.files.put("/root/state", b"two")
    made.stop(wait=True)
    made.restore_snapshot("s0", wait=True)
    assert made.files.get("/root/state") == b"one"
    snap = made.snapshots.get("s0")
    snap.rename("s1", wait=True)
    assert [s.name for s in made.snapshots.all()] == ["s1"]
    published = made.snapshots.get("s1").publish(wait=True)
    assert published.fingerprint
    published.delete(wait=True)
    made.snapshots.get("s1").delete(wait=True)


@case
def publish_and_rename():
    made = CLIENT.containers.get("p1")
    image = made.publish(wait=True)
    assert image.fingerprint
    image.delete(wait=True)
    made.rename("p2", wait=True)
    assert CLIENT.containers.exists("p2")
    assert not CLIENT.containers.exists("p1")


@case
def networks():
    managed = [n for n in CLIENT.networks.all() if n.managed]
    assert managed
    assert CLIENT.networks.get(managed[0].name).type == "bridge"
    made = CLIENT.networks.create("mpy0", config={"ipv4.address": "10.231.78.1/24", "ipv6.address": "none"})
    made.config["ipv4.nat"] = "true"
    made.save()
    assert CLIENT.networks.get("mpy0").config["ipv4.nat"] == "true"
    made.rename("mpy1")
    CLIENT.networks.get("mpy1").delete()


@case
def storage_pools():
    assert "default" in [p.name for p in CLIENT.storage_pools.all()]
    assert CLIENT.storage_pools.get("default").driver == "overlay"
    assert CLIENT.storage_pools.get("default").resources.get().space["total"] > 0


@case
def operations():
    response = CLIENT.api.containers["p2"].state.put(json={"action": "start", "timeout": 30, "force": False})
    operation = response.json()["operation"]
    CLIENT.operations.wait_for_operation(operation)
    assert CLIENT.operations.get(operation).status == "Success"


@case
def events():
    seen = []
    listener = CLIENT.events()
    listener.received_message = lambda message: seen.append(message.data)
    listener.connect()
    thread = threading.Thread(target=listener.run, daemon=True)
    thread.start()
    made = CLIENT.containers.get("p2")
    made.stop(force=True, wait=True)
    eventually(lambda: any(b"instance-stopped" in m for m in seen), "a lifecycle event")
    eventually(lambda: any(b'"operation"' in m for m in seen), "an operation event")
    listener.close()


@case
def certificates():
    assert CLIENT.certificates.all() == []


@case
def clean():
    CLIENT.containers.get("p2").delete(wait=True)
    for image in CLIENT.images.all():
        image.delete(wait=True)
    assert CLIENT.containers.all() == []


print(len(DONE), "cases, all passed")
