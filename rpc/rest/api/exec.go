package api

import (
	"encoding/json"
	"fmt"
	"strings"
)

// InstanceExecPost runs a command in an instance.
type InstanceExecPost struct {
	Command []string `json:"command"`
	// WaitForWS holds the command back until the websockets are connected;
	// without it stdin is /dev/null and the output is dropped or recorded.
	WaitForWS bool `json:"wait-for-websocket"`
	// Interactive gives the command a terminal and one websocket.
	Interactive bool              `json:"interactive"`
	Environment map[string]string `json:"environment"`
	// Width and Height are in characters.
	Width  int `json:"width"`
	Height int `json:"height"`
	// RecordOutput keeps stdout and stderr as log files of the instance.
	RecordOutput bool   `json:"record-output"`
	User         uint32 `json:"user"`
	Group        uint32 `json:"group"`
	Cwd          string `json:"cwd"`
}

// InstanceExecControl is one message on the control websocket of an exec.
type InstanceExecControl struct {
	// Command is "window-resize" or "signal".
	Command string      `json:"command"`
	Args    ControlArgs `json:"args,omitempty"`
	// Signal is a signal's number.
	Signal int `json:"signal,omitempty"`
}

// InstanceConsolePost attaches to an instance's console.
type InstanceConsolePost struct {
	Width  int `json:"width"`
	Height int `json:"height"`
	// Type is "console" or "" for the text console.
	Type string `json:"type,omitempty"`
}

// InstanceConsoleControl is one message on the control websocket of a console.
type InstanceConsoleControl struct {
	// Command is "window-resize".
	Command string      `json:"command"`
	Args    ControlArgs `json:"args,omitempty"`
}

// ControlArgs are the arguments of a control message: "width" and "height".
// The documents write them as strings; some clients send numbers.
type ControlArgs map[string]string

// UnmarshalJSON accepts strings and numbers.
func (a *ControlArgs) UnmarshalJSON(data []byte) error {
	var raw map[string]any
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.UseNumber()
	if err := decoder.Decode(&raw); err != nil {
		return err
	}
	*a = make(ControlArgs, len(raw))
	for key, value := range raw {
		switch value := value.(type) {
		case string:
			(*a)[key] = value
		case json.Number:
			(*a)[key] = value.String()
		default:
			return fmt.Errorf("args.%s must be a string or a number", key)
		}
	}
	return nil
}
