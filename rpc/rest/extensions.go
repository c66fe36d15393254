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
	return names
}
