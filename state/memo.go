package state

import "sync/atomic"

// Memo remembers one encoding of an immutable object, so that a list of many
// objects need not encode each of them again. The zero value is empty and ready.
type Memo struct {
	held atomic.Pointer[memoized]
}

type memoized struct {
	key   Revision
	value []byte
}

// Get returns the encoding for key: the remembered one, or the result of
// encode, which it then remembers. The key is the newest revision of everything
// that the encoding depends on besides the object itself. A nil Memo remembers
// nothing. The caller must not write to the result.
func (m *Memo) Get(key Revision, encode func() ([]byte, error)) ([]byte, error) {
	if m == nil {
		return encode()
	}
	if held := m.held.Load(); held != nil && held.key == key {
		return held.value, nil
	}
	value, err := encode()
	if err != nil {
		return nil, err
	}
	m.held.Store(&memoized{key: key, value: value})
	return value, nil
}
