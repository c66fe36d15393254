// Package password keeps the trust password: what is stored can be checked
// against, and cannot be read back; and whoever guesses is slowed down.
//
// It never stores anything itself and never says how close a guess was.
package password

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/crypto/scrypt"
)

// The cost of one check: about 0.1 s and 32 MiB (scrypt with N=2^15, r=8, p=1;
// the numbers are stored with each hash, so that they can grow).
const (
	costLog    = 15
	blockSize  = 8
	saltLength = 16
	keyLength  = 32
)

// prefix marks a stored hash; what follows is logN$r$salt$key.
const prefix = "scrypt$"

// working lets one scrypt run at a time, so that guesses from many addresses
// cannot eat the memory of the machine.
var working sync.Mutex

// Hash returns what to store for a password.
func Hash(password string) (string, error) {
	salt := make([]byte, saltLength)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	key, err := derive(password, salt, costLog, blockSize)
	if err != nil {
		return "", err
	}
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("%s%d$%d$%s$%s", prefix, costLog, blockSize, encode(salt), encode(key)), nil
}

// Matches reports whether password is the one that stored was made of. It takes
// the same time for every wrong password. A damaged or empty hash matches
// nothing.
func Matches(stored, password string) bool {
	rest, ok := strings.CutPrefix(stored, prefix)
	parts := strings.Split(rest, "$")
	if !ok || len(parts) != 4 {
		return false
	}
	var logN, r int
	if _, err := fmt.Sscanf(parts[0]+" "+parts[1], "%d %d", &logN, &r); err != nil || logN < 1 || logN > 20 || r < 1 || r > 32 {
		return false
	}
	salt, saltErr := base64.RawStdEncoding.DecodeString(parts[2])
	want, keyErr := base64.RawStdEncoding.DecodeString(parts[3])
	if saltErr != nil || keyErr != nil || len(want) != keyLength {
		return false
	}
	got, err := derive(password, salt, logN, r)
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1
}

func derive(password string, salt []byte, logN, r int) ([]byte, error) {
	working.Lock()
	defer working.Unlock()
	return scrypt.Key([]byte(password), salt, 1<<logN, r, 1, keyLength)
}
