package lxc_test

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"

	"muster/node/runtime"
	"muster/node/runtime/runtimetest"
)

var bridges atomic.Int32

// bridge makes a bridge that goes with the test.
func bridge(t *testing.T) string {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("mt%d-%d", os.Getpid(), bridges.Add(1))
	link := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatalf("make bridge %s: %v", attrs.Name, err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(link); err != nil {
			t.Errorf("remove bridge %s: %v", attrs.Name, err)
		}
	})
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	return attrs.Name
}

func TestContract(t *testing.T) {
	runtimetest.TestRuntime(t, runtimetest.Harness{
		New:    func(t *testing.T) runtime.Runtime { return open(t) },
		Spec:   func(t *testing.T, id string) runtime.Spec { return spec(t, id) },
		Bridge: bridge,
	})
}
