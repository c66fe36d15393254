package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"muster/cluster/coord"
	"muster/state"
	"muster/state/store"
)

// VirtualAddress lends the cluster's address to this machine; cmd implements it on
// node/vip and the one port.
type VirtualAddress interface {
	// Lend puts the address on the interface, or prolongs it, and listens on it; the
	// kernel takes it away virtualLifetime later. An empty interface is the one that has
	// this member's own address.
	Lend(ctx context.Context, prefix netip.Prefix, device string, lifetime time.Duration) error
	// Announce tells the neighbours that it is here.
	Announce(ctx context.Context) error
	// Drop takes it away at once, if it is here.
	Drop(ctx context.Context) error
}

// The lease of the virtual address. Its holder puts the address on its interface for
// virtualLifetime at a time, so that the kernel takes it away from a holder that is dead
// or paused. What was lent at virtualFresh after the last renewal began, at the latest,
// is gone before the coordinator, which counts from when it saw the renewal, gives the
// lease to another: virtualFresh + virtualLifetime + the kernel's delay (0.5 s) are
// virtualTTL. So no two hold it: not by luck, by the clock.
const (
	virtualLease    = "virtual-address"
	virtualTTL      = 2200 * time.Millisecond
	virtualLifetime = time.Second
	virtualFresh    = 700 * time.Millisecond
	// virtualRenew is how often the lease is renewed, virtualLook how often it is looked
	// whether it is free.
	virtualRenew = 300 * time.Millisecond
	virtualLook  = 100 * time.Millisecond
	// virtualCourtesy is how long a coordinator leaves a free lease to others: when it
	// dies as the holder, an election comes on top of the lease's time.
	virtualCourtesy = 500 * time.Millisecond
)

// virtualTask is what this member knows of the lease.
type virtualTask struct {
	*Cluster
	// renewed is when the last renewal that succeeded began; zero while another holds
	// the lease, or nobody.
	renewed time.Time
	tried   time.Time
	// asked says that this member may have the lease: an attempt that was given up may
	// have succeeded.
	asked bool
	// free is since when nobody was seen to hold it.
	free time.Time
	// lent is what is on the interface, as far as this member put it there; announced
	// counts how often the neighbours were told.
	lent      netip.Prefix
	announced int
	told      time.Time
}

// tendVirtual holds the cluster's address while this member has its lease. When ctx ends
// it gives both back.
func (c *Cluster) tendVirtual(ctx context.Context) error {
	if c.cfg.Virtual == nil {
		<-ctx.Done()
		return nil
	}
	v := &virtualTask{Cluster: c}
	ticker := time.NewTicker(virtualLook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			v.release(ctx)
			return nil
		case <-ticker.C:
			v.once(ctx)
		}
	}
}

// once does what is due.
func (v *virtualTask) once(ctx context.Context) {
	view := v.store.View()
	prefix, device := v.virtual(view)
	if !prefix.IsValid() || prefix != v.lent && v.lent.IsValid() {
		v.release(ctx)
		return
	}
	lease, held := v.cfg.Coord.Lease(virtualLease)
	switch {
	case held && lease.Holder != v.cfg.MemberID:
		v.drop(ctx)
		v.free = time.Time{}
		return
	case !held && v.free.IsZero():
		v.free = time.Now()
	}
	_, coordinates := v.cfg.Coord.Leading()
	if yields := coordinates && v.anotherOnline(view); yields && held {
		// It moves now, in order, and not after an election, in three seconds.
		v.release(ctx)
		v.free = time.Now()
		return
	} else if yields && time.Since(v.free) < virtualCourtesy {
		return
	}
	if time.Since(v.renewed) > virtualRenew && time.Since(v.tried) > virtualLook {
		v.renew(ctx)
	}
	if v.renewed.IsZero() || time.Since(v.renewed) > virtualFresh {
		return // the kernel takes it away
	}
	v.lend(ctx, prefix, device)
}

// virtual returns what the settings say of the address: the zero prefix when this member
// is not to hold one.
func (v *virtualTask) virtual(view *store.View) (prefix netip.Prefix, device string) {
	self, err := view.MemberByID(v.cfg.MemberID)
	if err != nil || self.Address == "" || self.Config[store.LeavingKey] != "" {
		return netip.Prefix{}, ""
	}
	prefix, err = netip.ParsePrefix(view.Setting("", "cluster.virtual_address"))
	if err != nil {
		return netip.Prefix{}, ""
	}
	return prefix, view.Setting(self.Name, "cluster.virtual_address.interface")
}

func (v *virtualTask) anotherOnline(view *store.View) bool {
	for _, m := range view.Members() {
		known, found := v.cfg.Coord.Member(m.ID)
		if m.ID != v.cfg.MemberID && found && known.Verdict == coord.Online && m.Config[store.LeavingKey] == "" {
			return true
		}
	}
	return false
}

// renew takes the lease or prolongs it.
func (v *virtualTask) renew(ctx context.Context) {
	began := time.Now()
	v.tried = began
	v.asked = true
	asking, cancel := context.WithTimeout(ctx, virtualFresh)
	defer cancel()
	_, err := v.cfg.Coord.Propose(asking, coord.AcquireLease{Name: virtualLease, Holder: v.cfg.MemberID, TTL: virtualTTL})
	switch {
	case err == nil:
		v.renewed = began
		v.free = time.Time{}
	case errors.Is(err, state.ErrConflict):
		v.asked = false
		v.drop(ctx)
	default:
		v.log.Debug("renew the lease of the virtual address", "error", err)
	}
}

// lend keeps the address on the interface.
func (v *virtualTask) lend(ctx context.Context, prefix netip.Prefix, device string) {
	fresh := v.lent != prefix
	// The end of ctx does not make it half: release comes after it, and takes all away.
	lending, cancel := context.WithTimeout(context.WithoutCancel(ctx), virtualLifetime)
	defer cancel()
	if err := v.cfg.Virtual.Lend(lending, prefix, device, virtualLifetime); err != nil {
		if time.Since(v.told) > time.Minute {
			v.told = time.Now()
			v.log.Error("hold the cluster's virtual address: another member may", "address", prefix, "error", err)
		}
		v.lent = prefix // some of it may be
		v.release(ctx)
		// Not at once again: whoever can is to have a chance.
		v.tried = time.Now().Add(virtualTTL)
		return
	}
	if fresh {
		v.lent, v.announced = prefix, 0
		v.log.Info("this member holds the cluster's virtual address", "address", prefix)
	}
	// Neighbours may miss one, or refuse it because they have just asked.
	if v.announced < 10 {
		if err := v.cfg.Virtual.Announce(ctx); err != nil {
			v.log.Warn("announce the virtual address", "address", prefix, "error", err)
		}
		v.announced++
	}
}

// drop takes the address from the interface.
func (v *virtualTask) drop(ctx context.Context) {
	v.renewed = time.Time{}
	if !v.lent.IsValid() {
		return
	}
	if err := v.cfg.Virtual.Drop(ctx); err != nil {
		v.log.Warn("take the virtual address away: the kernel does, in a moment", "address", v.lent, "error", err)
	}
	v.log.Info("this member no longer holds the cluster's virtual address", "address", v.lent)
	v.lent = netip.Prefix{}
}

// release gives the address and then the lease back, also when ctx is about to end: another
// member is to have it now, and not when the lease has run out.
func (v *virtualTask) release(ctx context.Context) {
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	v.drop(asking)
	if !v.asked {
		return
	}
	if _, err := v.cfg.Coord.Propose(asking, coord.ReleaseLease{Name: virtualLease, Holder: v.cfg.MemberID}); err != nil {
		v.log.Debug("give the lease of the virtual address back", "error", err)
		return
	}
	v.asked = false
}

// checkVirtual refuses a virtual address that a member has as its own.
func checkVirtual(view *store.View, config state.Config) error {
	prefix, err := netip.ParsePrefix(config["cluster.virtual_address"])
	if err != nil {
		return nil //nolint:nilerr // unset, or refused before
	}
	for _, m := range view.Members() {
		if host, _, err := net.SplitHostPort(m.Address); err == nil && host == prefix.Addr().String() {
			return state.Errorf(state.ErrInvalid, "cluster.virtual_address: %s is the address of member %q: choose one that no machine has", prefix.Addr(), m.Name)
		}
	}
	return nil
}
