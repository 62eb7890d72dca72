package coordinator

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"

	"github.com/elsewhere-net/elsewhere/internal/file"
)

// secret is what agents' credentials are made from: kept in a file, so that they outlive a restart.
func secret(path string) ([]byte, error) {
	if err := file.Private(path); err != nil {
		return nil, err
	}
	kept, err := os.ReadFile(path)
	if err == nil && len(kept) == sha256.Size {
		return kept, nil
	}
	fresh := make([]byte, sha256.Size)
	if _, err := rand.Read(fresh); err != nil {
		return nil, fmt.Errorf("random numbers: %w", err)
	}
	if err := os.WriteFile(path, fresh, 0o600); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	return fresh, nil
}

// credential is what an agent proves its name with.
func (c *Coordinator) credential(agent string) string {
	mac := hmac.New(sha256.New, c.secret)
	mac.Write([]byte(agent))
	return hex.EncodeToString(mac.Sum(nil))
}

// Verify says whether a credential is the agent's.
func (c *Coordinator) Verify(agent, credential string) bool {
	return hmac.Equal([]byte(credential), []byte(c.credential(agent)))
}
