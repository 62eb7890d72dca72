package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxText bounds the words of an Evidence, in bytes.
const maxText = 500

// Short returns the form of a failure that people are shown, such as "tcp_timeout".
func Short(f pb.Failure) string {
	return strings.ToLower(strings.TrimPrefix(f.String(), "FAILURE_"))
}

// portless is an error of a socket without the addresses of its ends, which the evidence has in fields of their own:
// with them, no two agents would ever say the same.
func portless(err error) error {
	var op *net.OpError
	if !errors.As(err, &op) || op.Err == nil {
		return err
	}
	cause := op.Err
	var call *os.SyscallError
	if errors.As(cause, &call) {
		cause = call.Err
	}
	return fmt.Errorf("%s over %s: %w", op.Op, strings.ToUpper(op.Net), cause)
}

// clean makes a string from the network fit to be stored and shown: valid UTF-8 without control or
// direction-changing characters, at most limit bytes.
func clean(s string, limit int) string {
	if printable(s) { // As nearly all that comes is.
		return s[:min(len(s), limit)]
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == utf8.RuneError:
			return -1
		}
		return r
	}, s[:min(len(s), 4*limit)])
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}

// escape makes a string from the network fit to be stored and shown without losing what was there: what is
// not valid UTF-8, a control other than a tab or changes direction is written as \xNN, \uNNNN or \UNNNNNNNN.
// At most limit bytes.
func escape(s string, limit int) string {
	var b strings.Builder
	for i, r := range s {
		part := string(r)
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], part), unicode.IsControl(r) && r < utf8.RuneSelf && r != '\t':
			part = fmt.Sprintf(`\x%02x`, s[i])
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) && r != '\t':
			part = strings.Trim(strconv.QuoteToASCII(part), `"`)
		}
		if b.Len()+len(part) > limit {
			break
		}
		b.WriteString(part)
	}
	return b.String()
}

// printable says whether s is ASCII without controls.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// canonical returns a domain name in lower case without its trailing dot, as A-labels; the root is ".".
func canonical(name string) string {
	if name == "." {
		return name
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for _, r := range name {
		if r >= utf8.RuneSelf {
			if a, err := idna.Lookup.ToASCII(name); err == nil {
				return a
			}
			break
		}
	}
	return name
}

// texts returns addresses as text.
func texts(ips []netip.Addr) []string {
	var out []string
	for _, ip := range ips {
		out = append(out, ip.String())
	}
	return out
}

func duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }
