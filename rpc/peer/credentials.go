package peer

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"muster/state"
)

// onePort takes connections from the one port, where TLS has been spoken and both
// ends know each other already.
type onePort struct {
	memberOf func(net.Conn) string
}

// member is who is at the other end.
type member struct {
	credentials.CommonAuthInfo

	id string
}

// AuthType implements credentials.AuthInfo.
func (member) AuthType() string { return "muster-member" }

// calling returns the ID of the member that makes a call, or "".
func calling(ctx context.Context) string {
	if from, ok := peer.FromContext(ctx); ok {
		if known, ok := from.AuthInfo.(member); ok {
			return known.id
		}
	}
	return ""
}

func (o onePort) know(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	id := o.memberOf(conn)
	if id == "" {
		return nil, nil, state.Errorf(state.ErrForbidden, "the peer is no member")
	}
	return conn, member{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, id}, nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (o onePort) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return o.know(conn)
}

// ServerHandshake implements credentials.TransportCredentials.
func (o onePort) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return o.know(conn)
}

// Info implements credentials.TransportCredentials.
func (o onePort) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (o onePort) Clone() credentials.TransportCredentials { return o }

// OverrideServerName implements credentials.TransportCredentials: the name was
// checked when the port was dialled.
func (o onePort) OverrideServerName(string) error { return nil }
