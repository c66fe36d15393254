package gossip

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"time"

	"muster/state"
)

// Messages begin with a version and a kind; numbers are unsigned varints. Bytes
// after the known fields belong to a later release and are skipped.
const (
	version     = 1
	kindLoad    = 1
	kindNotice  = 2
	maxID       = 128
	maxMessage  = 1024
	maxState    = 1 << 20
	maxAge      = 24 * time.Hour
	noticeDoubt = 1
	noticeLeave = 2
)

var errMalformed = errors.New("malformed gossip message")

// record is a load with whose it is and how new.
type record struct {
	id string
	// seq grows with every load a member tells.
	seq  uint64
	load Load
	at   time.Time
}

func encodeLoad(r record, now time.Time) []byte {
	data := binary.AppendUvarint([]byte{version, kindLoad}, uint64(len(r.id)))
	data = append(data, r.id...)
	age := min(max(now.Sub(r.at), 0), maxAge)
	l := r.load
	for _, number := range []uint64{
		r.seq, uint64(age.Milliseconds()), uint64(max(l.FreeCPU, 0)), uint64(max(l.FreeMemory, 0)),
		uint64(max(l.FreeDisk, 0)), uint64(max(l.Instances, 0)),
	} {
		data = binary.AppendUvarint(data, number)
	}
	return appendTrouble(data, l.Trouble)
}

// maxTrouble bounds the sentence that is told.
const maxTrouble = 300

// appendTrouble adds what a member says of its disk; nothing when it is well, as before
// there was such a thing.
func appendTrouble(data []byte, t state.Trouble) []byte {
	if t == (state.Trouble{}) {
		return data
	}
	grade := uint64(1)
	if t.Broken {
		grade = 2
	}
	text := t.Message[:min(len(t.Message), maxTrouble)]
	data = binary.AppendUvarint(binary.AppendUvarint(data, grade), uint64(len(text)))
	return append(data, text...)
}

// readTrouble reads what appendTrouble added. What it does not know says nothing.
func readTrouble(data []byte) state.Trouble {
	grade, data, err := number(data)
	if err != nil || grade != 1 && grade != 2 {
		return state.Trouble{}
	}
	size, data, err := number(data)
	if err != nil || size == 0 || size > min(maxTrouble, uint64(len(data))) {
		return state.Trouble{}
	}
	return state.Trouble{Broken: grade == 2, Message: strings.ToValidUTF8(string(data[:size]), "")}
}

func decodeLoad(data []byte, now time.Time) (record, error) {
	id, rest, err := head(data, kindLoad)
	if err != nil {
		return record{}, err
	}
	var numbers [6]uint64
	for i := range numbers {
		if numbers[i], rest, err = number(rest); err != nil {
			return record{}, err
		}
		if i > 0 && numbers[i] > math.MaxInt64 {
			return record{}, errMalformed
		}
	}
	if numbers[1] > uint64(maxAge.Milliseconds()) || numbers[5] > math.MaxInt32 {
		return record{}, errMalformed
	}
	return record{
		id: id, seq: numbers[0], at: now.Add(-time.Duration(numbers[1]) * time.Millisecond),
		load: Load{FreeCPU: int64(numbers[2]), FreeMemory: int64(numbers[3]), FreeDisk: int64(numbers[4]), Instances: int(numbers[5]), Trouble: readTrouble(rest)},
	}, nil
}

// encodeNotice says something of a member as of its load seq.
func encodeNotice(what uint64, id string, seq uint64) []byte {
	data := binary.AppendUvarint([]byte{version, kindNotice}, uint64(len(id)))
	data = append(data, id...)
	return binary.AppendUvarint(binary.AppendUvarint(data, what), seq)
}

func decodeNotice(data []byte) (what uint64, id string, seq uint64, err error) {
	id, rest, err := head(data, kindNotice)
	if err == nil {
		what, rest, err = number(rest)
	}
	if err == nil {
		seq, _, err = number(rest)
	}
	return what, id, seq, err
}

func head(data []byte, kind byte) (id string, rest []byte, err error) {
	if len(data) > maxMessage || len(data) < 3 || data[0] != version || data[1] != kind {
		return "", nil, errMalformed
	}
	size, rest, err := number(data[2:])
	if err != nil || size == 0 || size > maxID || size > uint64(len(rest)) {
		return "", nil, errMalformed
	}
	return string(rest[:size]), rest[size:], nil
}

func number(data []byte) (uint64, []byte, error) {
	value, n := binary.Uvarint(data)
	if n <= 0 {
		return 0, nil, errMalformed
	}
	return value, data[n:], nil
}

// encodeState frames all known loads for a push/pull.
func encodeState(records []record, now time.Time) []byte {
	data := []byte{version}
	for _, r := range records {
		message := encodeLoad(r, now)
		if len(data)+len(message)+binary.MaxVarintLen64 > maxState {
			break
		}
		data = binary.AppendUvarint(data, uint64(len(message)))
		data = append(data, message...)
	}
	return data
}

// decodeState returns the loads that could be read, also with an error.
func decodeState(data []byte, now time.Time) ([]record, error) {
	if len(data) == 0 || len(data) > maxState || data[0] != version {
		return nil, errMalformed
	}
	var records []record
	for data = data[1:]; len(data) > 0; {
		size, rest, err := number(data)
		if err != nil || size > uint64(len(rest)) {
			return records, errMalformed
		}
		r, err := decodeLoad(rest[:size], now)
		if err != nil {
			return records, err
		}
		records, data = append(records, r), rest[size:]
	}
	return records, nil
}
