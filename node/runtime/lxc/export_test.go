package lxc

// Prefix is the control group of all containers of a runtime.
func Prefix(r *Runtime) string { return r.prefix }
