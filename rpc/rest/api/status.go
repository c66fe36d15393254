package api

// StatusCode is the number that goes with every status word; clients are told
// to rely on the number.
type StatusCode int

// The status codes (LXD REST API, "Status codes"): 100–199 state of a
// resource, 200–399 good results, 400–599 bad ones.
const (
	OperationCreated StatusCode = 100
	Started          StatusCode = 101
	Stopped          StatusCode = 102
	Running          StatusCode = 103
	Cancelling       StatusCode = 104
	Pending          StatusCode = 105
	Starting         StatusCode = 106
	Stopping         StatusCode = 107
	Aborting         StatusCode = 108
	Freezing         StatusCode = 109
	Frozen           StatusCode = 110
	Thawed           StatusCode = 111
	Error            StatusCode = 112
	Ready            StatusCode = 113
	Success          StatusCode = 200
	Failure          StatusCode = 400
	Cancelled        StatusCode = 401
)

var statusNames = map[StatusCode]string{
	OperationCreated: "Operation created",
	Started:          "Started",
	Stopped:          "Stopped",
	Running:          "Running",
	Cancelling:       "Cancelling",
	Pending:          "Pending",
	Starting:         "Starting",
	Stopping:         "Stopping",
	Aborting:         "Aborting",
	Freezing:         "Freezing",
	Frozen:           "Frozen",
	Thawed:           "Thawed",
	Error:            "Error",
	Ready:            "Ready",
	Success:          "Success",
	Failure:          "Failure",
	Cancelled:        "Cancelled",
}

// String returns the status word, or "" for a code that is not in the table.
func (c StatusCode) String() string { return statusNames[c] }

// Final says whether an operation in this state has ended, well or badly.
func (c StatusCode) Final() bool { return c == Success || c == Failure || c == Cancelled }

// StatusCodeNamed returns the code whose word is name, or 0.
func StatusCodeNamed(name string) StatusCode {
	for code, word := range statusNames {
		if word == name {
			return code
		}
	}
	return 0
}
