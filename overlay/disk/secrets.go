package disk

import "github.com/kithnet/kith/overlay"

// Secret is a preshared key that was agreed on for the keys of both ends of a lane.
type Secret struct {
	Own, Other overlay.Key
	Key        []byte
	Number     uint64
}

const secretsFile = "preshared"

// LoadSecrets returns the preshared keys; none yet is no error.
func (f Folder) LoadSecrets() ([]Secret, error) {
	var all []Secret
	return all, f.load(secretsFile, &all)
}

// SaveSecrets keeps the preshared keys.
func (f Folder) SaveSecrets(all []Secret) error { return f.save(secretsFile, all) }
