package operations

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// block is a block of the page that is run: its language is sh; the words after it are the terminal of its own that it
// is for, if it is, and the word that it says when it is there.
type block struct {
	line            int
	section         string
	terminal, ready string
	text            string
}

var fence = regexp.MustCompile("^```(\\w*) ?([\\w-]*) ?(\\w*)$")

// blocks are those of a page.
func blocks(t *testing.T, path string) (list []block) {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var section string
	var open *block
	inside := false
	n := 0
	for line := range strings.Lines(string(page)) {
		n++
		match := fence.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		switch {
		case match != nil && !inside:
			inside = true
			if match[1] == "sh" {
				open = &block{line: n, section: section, terminal: match[2], ready: match[3]}
			}
		case match != nil:
			if open != nil {
				list = append(list, *open)
			}
			inside, open = false, nil
		case open != nil:
			open.text += line
		case !inside && strings.HasPrefix(line, "## "):
			section = strings.TrimSpace(line[3:])
		}
	}
	return list
}

// prelude makes a machine: an empty /var/lib and /var/backups, a loopback, nobody else's processes.
const prelude = `
mount -t tmpfs tmpfs /var/lib
mkdir -p /var/backups && mount -t tmpfs tmpfs /var/backups
mkdir -p /var/lib/elsewhere
ip link set lo up
patience() { timeout 60 bash -c "until grep -q '$2' '$1'; do sleep 0.1; done" || { echo "it never says $2:"; cat "$1"; exit 1; }; }
must() { echo "checking: $*"; "$@" || { echo "FAILED: $*"; exit 1; }; }
cd /var/lib
`

// pages are the pages that are run, and pageTime is how long one may take.
var pages = [...]string{"docs/operations.md", "docs/several-coordinators.md"}

const pageTime = 5 * time.Minute

// checks are what a section must have brought about, beside that each line of it succeeds.
var checks = map[string]string{
	"Enrol three agents": `
must [ "$(elsewhere measurements --format csv | grep -c 3/3)" = 1 ]`,
	"Tokens and quotas": `
must [ "$(elsewhere --token @/var/lib/elsewhere/ci agents revoke fra-1 >/dev/null 2>&1; echo $?)" = 4 ]`,
	"Revoke an agent": `
must [ "$(elsewhere tcp 127.0.0.1:7701 from iad-1 >/dev/null 2>&1; echo $?)" != 0 ]
elsewhere measurements -J > $T/before-kill`,
	"Kill and restart the coordinator": `
elsewhere measurements -J > $T/now
must grep -q '"answered": 3' $T/now
must grep -q '"answered": 2' $T/now`,
	"Who does not want to be measured": `
elsewhere tcp www.shop.example:443 2> $T/name || true
elsewhere tcp 192.0.2.80:443 2> $T/address || true
must grep -q 'shop.example is on the network.s opt-out list' $T/name
must grep -q '192.0.2.0/24 is on the network.s opt-out list' $T/address`,
	"Backup and restore": `
must [ "$(stat -c %a /var/backups/elsewhere.tar)" = 600 ]
must [ "$(elsewhere measurements --format csv | grep -c 3/3)" = 1 ]
must [ "$(elsewhere measurements --format csv | grep -c 2/2)" = 2 ]
must [ "$(elsewhere agents --format csv | grep -c iad-1)" = 1 ]
must [ "$(elsewhere agents -v --format csv | grep ,online, | grep -vc ',0,0$')" = 0 ]`,
	"Replace the authority": `
must [ "$(elsewhere authority list --format csv | grep -c ,yes,)" = 1 ]
must [ "$(elsewhere authority list --format csv | wc -l)" = 2 ]
until [ "$(elsewhere agents --format csv | grep -c ,online,)" = 2 ]; do sleep 1; done
must elsewhere tcp 127.0.0.1:7701
must [ "$(elsewhere measurements --format csv | grep -c 2/2)" = 3 ]`,
	"Three coordinators": `
must [ "$(elsewhere cluster --format csv | cut -d, -f6 | sort -u | wc -l)" = 2 ] # the heading, and one hash
for port in 7711 7721 7731; do must curl -fsS http://127.0.0.1:$port/readyz; done`,
	"Six agents": `
must [ "$(elsewhere measurements --format csv | grep -c 6/6)" = 1 ]
must [ "$(wc -l < /var/lib/elsewhere/agent-1/coordinators)" = 3 ]`,
	"Kill one, and bring it back": `
for i in 1 2 3 4 5; do must grep -q '"answered": 6' /var/lib/elsewhere/measured-$i || must grep -q Unavailable /var/lib/elsewhere/measured-$i; done
must [ "$(elsewhere cluster --format csv | cut -d, -f6 | sort -u | wc -l)" = 2 ]`,
	"Upgrade one by one": `
must [ "$(elsewhere measurements --format csv | grep -vc 6/6)" = 1 ] # the heading
must [ "$(elsewhere cluster --format csv | cut -d, -f6 | sort -u | wc -l)" = 2 ]`,
	"Losing one for good": `
must [ "$(elsewhere cluster --format csv | cut -d, -f6 | sort -u | wc -l)" = 2 ]
must [ "$(elsewhere token list --format csv | grep -c 'admin.token of c-3')" -ge 1 ]`,
	"Another key of the gossip": `
sleep 12 # as long as it takes to find out that one is dead
must elsewhere cluster
must grep -q 'the keys of gossip hold as they are now.*keys=1' $T/*-c-1.log
must [ "$(cat $T/*.log | grep -c 'does not answer any more')" -le 4 ] # the three that were killed, and not by each other`,
	"From one to three": `
must [ "$(elsewhere measurements --format csv | grep -c 1/1)" = 2 ]
must [ "$(elsewhere cluster --format csv | cut -d, -f6 | sort -u | wc -l)" = 2 ]
must [ "$(elsewhere --token "$(cat /var/lib/elsewhere/alone/admin.token)" measurements >/dev/null 2>&1; echo $?)" = 4 ]`,
	"What to watch": `
curl -fsS http://127.0.0.1:7701/metrics > $T/metrics
for metric in $(grep -o 'elsewhere_[a-z_]*' $DOC | sort -u); do must grep -q "^$metric" $T/metrics; done`,
}

// script is the page as a script of bash.
func script(list []block) string {
	var b strings.Builder
	b.WriteString("set -eu -o pipefail\n" + prelude)
	for i, one := range list {
		fmt.Fprintf(&b, "echo '--- line %d: %s'\n", one.line, one.section)
		if one.terminal == "" {
			b.WriteString(one.text)
		} else {
			log := fmt.Sprintf("$T/%d-%s.log", i, one.terminal)
			fmt.Fprintf(&b, "bash -c %s >%s 2>&1 &\npatience %s %s\n", quoted(one.text), log, log, one.ready)
		}
		if last := i == len(list)-1 || list[i+1].section != one.section; last {
			b.WriteString(checks[one.section] + "\n")
		}
	}
	b.WriteString("echo '--- all of it'\n")
	return b.String()
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// TestAPageThatIsFollowedWordForWord: a newcomer enrols agents, revokes one, kills and restarts coordinators, one alone
// and one of three, restores a backup, replaces the authority, and loses nothing.
func TestAPageThatIsFollowedWordForWord(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for namespaces of its own")
	}
	bin := build(t)
	var all []block
	for _, page := range pages {
		list := blocks(t, "../../"+page)
		all = append(all, list...)
		t.Run(filepath.Base(page), func(t *testing.T) { follow(t, list, bin, page) })
	}
	if len(all) < 30 {
		t.Errorf("only %d blocks", len(all))
	}
	for section := range checks {
		if !strings.Contains(fmt.Sprint(all), section) {
			t.Errorf("no page has a section %q any more", section)
		}
	}
}

// follow runs the blocks of a page.
func follow(t *testing.T, list []block, bin, page string) {
	t.Helper()
	doc, err := filepath.Abs("../../" + page)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "page.sh")
	if err := os.WriteFile(path, []byte(script(list)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), pageTime)
	defer cancel()
	// --kill-child: with the first process of its namespace all others end.
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc", "bash", path)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "T="+dir, "DOC="+doc, "HOME="+dir, "CI=true", "XDG_STATE_HOME="+dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	t.Logf("%s", &out)
	if err != nil || !strings.HasSuffix(out.String(), "--- all of it\n") {
		t.Errorf("%v", err)
		logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
		for _, log := range logs {
			text, _ := os.ReadFile(log)
			t.Logf("%s:\n%s", filepath.Base(log), text[max(0, len(text)-3000):])
		}
	}
}

// build builds the programs and returns where they are.
func build(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	for program, from := range map[string]string{"elsewhere": "elsewhere", "elsewhere-agent": "agent", "elsewhere-coordinator": "coordinator"} {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-tags", "grpcnotrace", "-o", filepath.Join(bin, program), "../../cmd/"+from)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return bin
}
