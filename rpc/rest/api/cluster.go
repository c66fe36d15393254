package api

import (
	"fmt"
	"time"
)

// Cluster is what GET /1.0/cluster answers: whether the server is clustered,
// and which keys a joining member must bring values for.
type Cluster struct {
	// ServerName is the member's own name.
	ServerName   string                   `json:"server_name"`
	Enabled      bool                     `json:"enabled"`
	MemberConfig []ClusterMemberConfigKey `json:"member_config"`
}

// ClusterMemberConfigKey is a key that differs from member to member.
type ClusterMemberConfigKey struct {
	// Entity is "storage-pool" or "network".
	Entity      string `json:"entity"`
	Name        string `json:"name"`
	Key         string `json:"key"`
	Value       string `json:"value"`
	Description string `json:"description"`
}

// ClusterPut starts a cluster, joins one, or leaves.
type ClusterPut struct {
	Cluster
	// ClusterAddress is host:port of a member to join.
	ClusterAddress     string `json:"cluster_address"`
	ClusterCertificate string `json:"cluster_certificate"`
	// ServerAddress is host:port of this member.
	ServerAddress string `json:"server_address"`
	// ClusterToken is a join token; it stands for the address, the certificate and
	// the password.
	ClusterToken string `json:"cluster_token,omitempty"`
	// ClusterPassword is the trust password or a join token's secret.
	ClusterPassword string `json:"cluster_password"`
}

// ClusterMembersPost asks for a join token.
type ClusterMembersPost struct {
	ServerName string `json:"server_name"`
}

// ClusterMemberPut is what a client may replace of a member.
type ClusterMemberPut struct {
	Roles         []string          `json:"roles"`
	FailureDomain string            `json:"failure_domain"`
	Description   string            `json:"description"`
	Config        map[string]string `json:"config"`
	Groups        []string          `json:"groups"`
}

// ClusterMember is one machine of the cluster.
type ClusterMember struct {
	ClusterMemberPut
	ServerName string `json:"server_name"`
	URL        string `json:"url"`
	// Database says that the member holds a database.
	Database bool `json:"database"`
	// Status is "Online", "Offline", "Evacuated" or "Blocked"; or "Unreachable" when no
	// majority can say more of one that doesn't answer. Message says more.
	Status       string `json:"status"`
	Message      string `json:"message"`
	Architecture string `json:"architecture"`
}

// ClusterMemberPost renames a member.
type ClusterMemberPost struct {
	ServerName string `json:"server_name"`
}

// ClusterMemberState is how a member's machine is doing.
type ClusterMemberState struct {
	SysInfo      ClusterMemberSysInfo            `json:"sysinfo"`
	StoragePools map[string]ResourcesStoragePool `json:"storage_pools"`
}

// ClusterMemberSysInfo is what the kernel says of a member. Memory and swap are in
// bytes.
type ClusterMemberSysInfo struct {
	// Uptime is in seconds.
	Uptime       int64     `json:"uptime"`
	LoadAverages []float64 `json:"load_averages"`
	TotalRAM     uint64    `json:"total_ram"`
	FreeRAM      uint64    `json:"free_ram"`
	SharedRAM    uint64    `json:"shared_ram"`
	BufferRAM    uint64    `json:"buffered_ram"`
	TotalSwap    uint64    `json:"total_swap"`
	FreeSwap     uint64    `json:"free_swap"`
	Processes    uint16    `json:"processes"`
}

// ClusterMemberStatePost evacuates or restores a member.
type ClusterMemberStatePost struct {
	// Action is "evacuate" or "restore".
	Action string `json:"action"`
	// Mode overrides what the instances say: "stop", "migrate" …
	Mode string `json:"mode,omitempty"`
}

// ClusterMemberJoinToken lets one machine join; it is handed over as base64
// JSON.
type ClusterMemberJoinToken struct {
	ServerName string `json:"server_name"`
	// Fingerprint is the cluster certificate's.
	Fingerprint string    `json:"fingerprint"`
	Addresses   []string  `json:"addresses"`
	Secret      string    `json:"secret"`
	ExpiresAt   time.Time `json:"expires_at"`
}

// String encodes the token the way it is handed over.
func (t ClusterMemberJoinToken) String() string { return encodeToken(t) }

// ParseClusterMemberJoinToken decodes what String made.
func ParseClusterMemberJoinToken(text string) (ClusterMemberJoinToken, error) {
	var t ClusterMemberJoinToken
	if err := decodeToken(text, &t); err != nil {
		return t, err
	}
	if t.ServerName == "" || t.Secret == "" || t.Fingerprint == "" || len(t.Addresses) == 0 {
		return t, fmt.Errorf("not a join token: server_name, fingerprint, addresses and secret are needed")
	}
	return t, nil
}

// ClusterCertificatePut replaces the certificate that all members serve.
type ClusterCertificatePut struct {
	ClusterCertificate    string `json:"cluster_certificate"`
	ClusterCertificateKey string `json:"cluster_certificate_key"`
}

// ClusterGroupPut is what a client may replace of a group of members.
type ClusterGroupPut struct {
	Description string   `json:"description"`
	Members     []string `json:"members"`
}

// ClusterGroup is a named set of members.
type ClusterGroup struct {
	ClusterGroupPut
	Name string `json:"name"`
}

// ClusterGroupsPost creates a group.
type ClusterGroupsPost struct {
	ClusterGroupPut
	Name string `json:"name"`
}

// ClusterGroupPost renames a group.
type ClusterGroupPost struct {
	Name string `json:"name"`
}
