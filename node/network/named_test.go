package network

import (
	"errors"
	"strings"
	"testing"

	"muster/state"
)

// What can't be started is named by the caller, who knows it as a part of a cluster.
func TestErrorsOfOneNetworkDoNotNameIt(t *testing.T) {
	networks, err := New(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	err = networks.Start(t.Context(), state.Network{Name: "mt-named", Config: state.Config{"ipv4.address": "x", "ipv6.address": "none"}})
	if !errors.Is(err, state.ErrInvalid) || strings.Contains(err.Error(), "mt-named") {
		t.Errorf("a network without an address: %v; want ErrInvalid without the network's name", err)
	}
}
