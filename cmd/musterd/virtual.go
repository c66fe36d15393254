package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"muster/node/vip"
)

// virtual implements cluster.VirtualAddress. It is used by one goroutine.
type virtual struct {
	m *member

	prefix netip.Prefix
	device string
}

// Lend implements cluster.VirtualAddress.
func (v *virtual) Lend(ctx context.Context, prefix netip.Prefix, device string, lifetime time.Duration) error {
	host, port, err := net.SplitHostPort(v.m.mux.Address())
	if err != nil {
		return err
	}
	if device == "" {
		own, err := netip.ParseAddr(host)
		if err != nil {
			return err
		}
		if device, err = vip.DeviceOf(own); err != nil {
			return err
		}
	}
	if v.prefix.IsValid() && (v.prefix != prefix || v.device != device) {
		if err := v.drop(ctx); err != nil {
			return err
		}
	}
	if _, err := vip.Lend(prefix, device, lifetime); err != nil {
		return err
	}
	v.prefix, v.device = prefix, device
	return v.m.mux.SetSecond(ctx, net.JoinHostPort(prefix.Addr().String(), port))
}

// Announce implements cluster.VirtualAddress.
func (v *virtual) Announce(ctx context.Context) error {
	return vip.Announce(ctx, v.prefix.Addr(), v.device)
}

// Drop implements cluster.VirtualAddress.
func (v *virtual) Drop() error { return v.drop(context.Background()) }

func (v *virtual) drop(ctx context.Context) error {
	if !v.prefix.IsValid() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := errors.Join(vip.Drop(v.prefix, v.device), v.m.mux.SetSecond(ctx, ""))
	v.prefix = netip.Prefix{}
	return err
}
