package identity

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestTokens(t *testing.T) {
	pin := Pin{1, 2, 3}
	join, api := NewJoinToken(pin), NewAPIToken()
	if again, err := ParseJoinToken(join.Text()); err != nil || again != join || again.Pin != pin || !again.Matches(join.Hash()) {
		t.Errorf("%v, %v", again, err)
	}
	if again, err := ParseAPIToken(api.Text()); err != nil || again != api {
		t.Errorf("%v, %v", again, err)
	}
	if api.Matches(join.Hash()) || api.Matches(nil) {
		t.Error("a token matches the hash of another, or none")
	}
	id, secret := join.ID, strings.Split(join.Text(), "_")[2]
	for what, text := range map[string]string{
		"nothing":                    "",
		"a client's token":           api.Text(),
		"no pin":                     "ewj1_" + id + "_" + secret,
		"an empty pin":               "ewj1_" + id + "_" + secret + "_",
		"a secret that is cut short": "ewj1_" + id + "_" + secret[1:] + "_" + pin.String(),
		"a pin that is cut short":    join.Text()[:len(join.Text())-1],
		"something behind":           join.Text() + "_x",
		"capitals":                   strings.ToUpper(join.Text()),
		"an id with a capital":       "ewj1_" + strings.Repeat("A", 10) + "_" + secret + "_" + pin.String(),
		"another way to write a pin": join.Text()[:len(join.Text())-1] + "b",
		"a space":                    join.Text() + " ",
		"a megabyte":                 strings.Repeat(join.Text(), 10_000),
	} {
		if _, err := ParseJoinToken(text); !errors.Is(err, ErrToken) || secret != "" && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := ParseAPIToken(api.Text() + "_" + pin.String()); !errors.Is(err, ErrToken) {
		t.Errorf("a client's token with a pin: %v", err)
	}
}

func TestATokenKeepsItsSecret(t *testing.T) {
	token := NewAPIToken()
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("token", "token", token)
	slog.New(slog.NewTextHandler(&log, nil)).Info("token", "token", token)
	_, _ = fmt.Fprintf(&log, "%v %+v %#v %s", token, token, token, token)
	if strings.Contains(log.String(), strings.Split(token.Text(), "_")[2]) {
		t.Error(log.String())
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(NewJoinToken(Pin{}).Text())
	f.Add(NewAPIToken().Text())
	f.Add("ewj1___")
	f.Add("ewa1_aaaaaaaaaa_")
	f.Fuzz(func(t *testing.T, text string) {
		for _, parse := range []func(string) (Token, error){ParseJoinToken, ParseAPIToken} {
			token, err := parse(text)
			if err == nil && (token.Text() != text || len(token.ID) != idSize) {
				t.Errorf("%q is read as %q", text, token.Text())
			}
			if err != nil && !errors.Is(err, ErrToken) {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
}
