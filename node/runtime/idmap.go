package runtime

// IDMap maps the users and groups 0 to Size-1 of a container to Host and up on
// the host.
type IDMap struct {
	Host uint32
	Size uint32
}
