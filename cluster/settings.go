package cluster

import (
	"context"
	"fmt"

	"muster/state"
	"muster/state/store"
)

// UpdateSettings replaces the server configuration. A new address is bound before
// anything is recorded, so one that can't be used changes nothing.
func (c *Cluster) UpdateSettings(ctx context.Context, config state.Config, expectCluster, expectMember state.Revision) error {
	if err := state.ValidateServerConfig(config); err != nil {
		return err
	}
	release, err := c.locks.acquire(ctx, "server configuration", "update")
	if err != nil {
		return err
	}
	defer release()
	view := c.store.View()
	self := c.Self()
	command := store.SetSettings{
		Cluster: map[string]string{}, Member: self, Local: map[string]string{},
		ExpectRevision: expectCluster, ExpectLocalRevision: expectMember,
	}
	for _, setting := range view.Settings("") {
		if state.HiddenSetting(setting.Key) {
			continue
		}
		command.Cluster[setting.Key] = ""
	}
	for _, setting := range view.Settings(self) {
		command.Local[setting.Key] = ""
	}
	for key, value := range config {
		if state.MemberScoped(key) {
			command.Local[key] = value
		} else {
			command.Cluster[key] = value
		}
	}
	if err := checkVirtual(view, config); err != nil {
		return err
	}
	before, after := view.Setting(self, addressKey), config[addressKey]
	moved := before != after && c.cfg.Listen != nil
	at := after
	if record, err := view.Member(self); err == nil && c.Clustered() {
		if command.Address = record.Address; moved {
			if at, err = ReachableAddress(ctx, after); err != nil {
				return err
			}
			before, command.Address = record.Address, at
		}
	}
	if moved {
		if err := c.cfg.Listen(ctx, at); err != nil {
			return fmt.Errorf("core.https_address: %w", err)
		}
	}
	if err := c.apply(ctx, command); err != nil {
		if moved {
			if back := c.cfg.Listen(context.WithoutCancel(ctx), before); back != nil {
				c.log.Error("return to the former address", "address", before, "error", back)
			}
		}
		return err
	}
	return nil
}
