package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/elsewhere-net/elsewhere/internal/file"
)

const (
	joinPrefix, apiPrefix = "ewj1", "ewa1"
	// idSize is the length of a token's id: 50 bits, a name and no secret.
	idSize = 10
)

// base32Lower is RFC 4648 base32 in lower case and without padding.
var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ErrToken says that a text is no token. It never has the text.
var ErrToken = errors.New("not a token")

// Pin is SHA-256 of an authority's SubjectPublicKeyInfo: by it an agent knows a coordinator that it has never seen.
type Pin [sha256.Size]byte

// String is the pin as it stands in a join token.
func (p Pin) String() string { return base32Lower.EncodeToString(p[:]) }

// Hex is the pin as it stands in pb.Authority.
func (p Pin) Hex() string { return hex.EncodeToString(p[:]) }

// Token is a token with its secret. It prints as its id, so that no log gets the secret by accident.
type Token struct {
	// ID is its public name.
	ID string
	// Pin is that of the authority; a token for clients has none.
	Pin Pin

	prefix, secret string
}

// NewJoinToken makes a token for an agent.
func NewJoinToken(pin Pin) Token {
	t := newToken(joinPrefix)
	t.Pin = pin
	return t
}

// NewAPIToken makes a token for a client.
func NewAPIToken() Token { return newToken(apiPrefix) }

func newToken(prefix string) Token {
	random := make([]byte, 40)
	_, _ = rand.Read(random) // never fails
	return Token{ID: base32Lower.EncodeToString(random[32:])[:idSize], prefix: prefix, secret: base32Lower.EncodeToString(random[:32])}
}

// maxTokenFile bounds the file of a token, in bytes.
const maxTokenFile = 4 << 10

// ReadToken is the text of a token as it was given, or as it is in the file that "@FILE" names.
func ReadToken(given string) (string, error) {
	if path, inFile := strings.CutPrefix(given, "@"); inFile {
		text, err := file.Read(path, maxTokenFile)
		if err != nil {
			return "", err
		}
		given = string(text)
	}
	given = strings.TrimSpace(given)
	if strings.ContainsFunc(given, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("it is no token: it has characters that none has")
	}
	return given, nil
}

// ParseJoinToken reads what an agent was given: "ewj1_ID_SECRET_PIN". An error is ErrToken.
func ParseJoinToken(text string) (Token, error) {
	t, rest, err := parseToken(joinPrefix, text)
	if err != nil {
		return Token{}, err
	}
	pin, err := decode32(rest)
	if err != nil {
		return Token{}, fmt.Errorf("%w: its last part is no pin; is the text complete?", ErrToken)
	}
	t.Pin = Pin(pin)
	return t, nil
}

// ParseAPIToken reads a bearer token: "ewa1_ID_SECRET". An error is ErrToken.
func ParseAPIToken(text string) (Token, error) {
	t, rest, err := parseToken(apiPrefix, text)
	if err == nil && rest != "" {
		err = fmt.Errorf("%w: it has too many parts", ErrToken)
	}
	if err != nil {
		return Token{}, err
	}
	return t, nil
}

// parseToken reads "PREFIX_ID_SECRET" and returns what follows the next "_".
func parseToken(prefix, text string) (t Token, rest string, err error) {
	if len(text) > 512 {
		return t, "", fmt.Errorf("%w: it is too long", ErrToken)
	}
	parts := strings.SplitN(text, "_", 4)
	if parts[0] != prefix {
		return t, "", fmt.Errorf("%w: it must begin with %s_", ErrToken, prefix)
	}
	if len(parts) < 3 || len(parts) == 4 && parts[3] == "" {
		return t, "", fmt.Errorf("%w: a part of it is missing; is the text complete?", ErrToken)
	}
	if _, err := decode32(parts[2]); err != nil {
		return t, "", fmt.Errorf("%w: the secret is not whole; is the text complete?", ErrToken)
	}
	if !validID(parts[1]) {
		return t, "", fmt.Errorf("%w: its second part is no id", ErrToken)
	}
	if len(parts) == 4 {
		rest = parts[3]
	}
	return Token{ID: parts[1], prefix: prefix, secret: parts[2]}, rest, nil
}

func validID(id string) bool {
	return len(id) == idSize && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// decode32 reads 32 bytes in the one way of writing them.
func decode32(text string) ([]byte, error) {
	b, err := base32Lower.DecodeString(text)
	if err != nil || len(b) != sha256.Size || base32Lower.EncodeToString(b) != text {
		return nil, ErrToken
	}
	return b, nil
}

// Text is the token with its secret: what its owner is given, once.
func (t Token) Text() string {
	text := t.prefix + "_" + t.ID + "_" + t.secret
	if t.prefix == joinPrefix {
		text += "_" + t.Pin.String()
	}
	return text
}

// Hash is SHA-256 of the secret: what is kept. The secret has 256 bits, so nothing slower is needed.
func (t Token) Hash() []byte {
	sum := sha256.Sum256([]byte(t.secret))
	return sum[:]
}

// Matches says, in constant time, whether a hash is the token's.
func (t Token) Matches(hash []byte) bool { return subtle.ConstantTimeCompare(t.Hash(), hash) == 1 }

// String is the token without its secret.
func (t Token) String() string { return t.prefix + "_" + t.ID + "_…" }

// GoString is String: %#v shows no secret either.
func (t Token) GoString() string { return t.String() }
