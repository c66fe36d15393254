package rest

import "slices"

// An extension is an addition to the API that clients look for by name before
// they use it (LXD REST API, "api_extensions"). It is announced when a route
// that announces it is served, so that the list cannot promise what is missing.
type extension struct {
	name string
	// text says what the client may rely on.
	text string
	// test is the test that shows it, by name.
	test string
}

// extensions are all that this server knows to announce, in the order in which
// they are listed. A route names its own in announces.
var extensions = []extension{
	{"etag", "objects carry an ETag, and changes heed If-Match", "TestETags"},
	{"patch", "PATCH changes parts of an object", "TestPatch"},
	{"profile_usedby", "profiles list the instances that have them", "TestProfiles"},
	{"certificate_update", "certificates can be renamed and restricted", "TestCertificates"},
	{"entity_description", "profiles and others have a description", "TestProfiles"},
	{"resources", "GET /1.0/resources shows the hardware", "TestResources"},
	{"operation_description", "operations say what they do", "TestOperations"},
	{"event_lifecycle", "changes are told as lifecycle events", "TestEvents"},
	{"projects", "projects keep instances, images and profiles apart", "TestProjects"},
	{"resources_cpu_socket", "processors are listed by socket", "TestResources"},
	{"resources_numa", "hardware names its NUMA node", "TestResources"},
	{"kernel_features", "the environment lists what the kernel can do", "TestServer"},
	{"event_location", "events name the member they come from", "TestEvents"},
	{"lxc_features", "the environment lists what liblxc can do", "TestServer"},
	{"resources_v2", "hardware is listed down to threads, partitions and ports", "TestResources"},
	{"certificate_project", "certificates can be restricted to projects", "TestRestrictedClients"},
	{"certificate_token", "a token lets a client add its own certificate", "TestTrustTokens"},
	{"instances", "instances are at /1.0/instances, and still at /1.0/containers", "TestLXC"},
	{"container_full", "recursion=2 lists instances with state and snapshots", "TestLXC"},
	{"instance_get_full", "recursion=1 shows one instance with state and snapshots", "TestLXC"},
	{"instance_all_projects", "all-projects=true lists instances of all projects", "TestLXC"},
	{"api_filtering", "filter= selects from lists", "TestWhatFiltersSelect"},
	{"instance_bulk_state_change", "PUT /1.0/instances changes the state of all", "TestLXC"},
	{"container_last_used_at", "instances tell when they were last started", "TestLXC"},
	{"container_cpu_time", "state counts processor time", "TestLXC"},
	{"container_copy_project", "an instance can be copied from another project", "TestLXC"},
	{"container_only_migration", "a copy can leave the snapshots out", "TestLXC"},
	{"snapshot_expiry", "snapshots can expire", "TestLXC"},
	{"snapshot_expiry_creation", "a snapshot's expiry can be given when it is taken", "TestLXC"},
	{"container_exec_recording", "the output of a command can be recorded", "TestExec"},
	{"container_exec_signal_handling", "signals reach commands", "TestExec"},
	{"container_exec_user_group_cwd", "commands run as a user, a group and in a directory", "TestLXC"},
	{"console", "the console can be attached, and its log read", "TestLXC"},
	{"directory_manipulation", "directories can be made and listed", "TestLXC"},
	{"file_symlinks", "symbolic links can be made", "TestLXC"},
	{"file_append", "files can be appended to", "TestFiles"},
	{"file_delete", "files can be deleted", "TestLXC"},
	{"image_compression_algorithm", "published images can be compressed in several ways", "TestLXC"},
	{"image_create_aliases", "aliases can be given with a new image", "TestLXC"},
	{"network", "bridges are managed", "TestLXC"},
	{"network_hwaddr", "bridge.hwaddr fixes a bridge's address", "TestLXCImagesAndNames"},
	{"network_leases", "networks list their leases", "TestLXC"},
	{"network_state", "networks tell how they are on a member", "TestLXC"},
	{"instance_nic_network", "a nic names its network", "TestLXC"},
	{"storage", "storage pools are managed", "TestLXC"},
	{"clustering", "servers form a cluster", "TestCluster"},
	{"clustering_join", "a server joins a cluster through the API", "TestCluster"},
	{"clustering_join_token", "a token lets a server join once", "TestCluster"},
	{"clustering_update_cert", "the certificate of a cluster can be replaced", "TestClusterCertificate"},
	{"cluster_internal_copy", "instances are copied and moved between members by the server", "TestMove"},
	{"clustering_edit_roles", "members can be edited; their roles are the cluster's to give", "TestGroups"},
	{"clustering_failure_domains", "members have failure domains, over which instances and votes are spread", "TestGroups"},
	{"clustering_groups", "members are in groups, which instances can be aimed at", "TestGroups"},
	{"cluster_member_state", "members tell how their machines are doing", "TestMemberState"},
	{"storage_volume_state", "volumes tell the space they take", "TestLXC"},
}

// always is what every server announces.
var always = []string{"etag", "patch", "kernel_features", "lxc_features"}

// announced returns the extensions that the routes serve, in the table's order.
func announced(routes []route) []string {
	served := map[string]bool{}
	for _, name := range always {
		served[name] = true
	}
	for _, route := range routes {
		for _, name := range route.announces {
			served[name] = true
		}
	}
	names := []string{}
	for _, extension := range extensions {
		if served[extension.name] && !slices.Contains(names, extension.name) {
			names = append(names, extension.name)
		}
	}
	for _, name := range freshExtensions {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
