package launch

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// What the test's own program does when it is started by a test.
const asLauncher = "LAUNCH_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(asLauncher) != "" {
		os.Unsetenv(asLauncher)
		os.Exit(Run(os.Args[1:], os.Stdin, os.Stderr))
	}
	os.Exit(m.Run())
}

// launched is what a program prints and its exit code.
func launched(t *testing.T, input string, environment []string, arguments ...string) (string, int) {
	t.Helper()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	command := exec.Command(own, arguments...)
	command.Env = append(environment, asLauncher+"=1")
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(input), &said, &said
	if err := command.Run(); err != nil && command.ProcessState == nil {
		t.Fatal(err)
	}
	return said.String(), command.ProcessState.ExitCode()
}

func TestVariablesAreReadUpToTheEmptyOne(t *testing.T) {
	found, err := Read(strings.NewReader("A=1\x00B=\x00C=x=y\nz\x00\x00D=after"))
	if err != nil || strings.Join(found, "|") != "A=1|B=|C=x=y\nz" {
		t.Fatal(found, err)
	}
}

func TestVariablesThatAreNotWholeStartNothing(t *testing.T) {
	for _, cut := range []string{"", "A=1", "A=1\x00", "A=1\x00B", "nothing\x00\x00", "=1\x00\x00"} {
		if said, code := launched(t, cut, nil, "/bin/echo", "started"); said != "" || code != Lost {
			t.Errorf("%q: %q, %d", cut, said, code)
		}
	}
}

func TestAProgramHasTheVariablesBesideItsOwnAndInTheirPlace(t *testing.T) {
	said, code := launched(t, "B=of the input\x00C=x=y\x00\x00", []string{"A=own", "B=own"}, "/usr/bin/env")
	if code != 0 || said != "A=own\nB=of the input\nC=x=y\n" {
		t.Errorf("%q, %d", said, code)
	}
}

func TestAProgramIsLookedForInThePathThatItWillHave(t *testing.T) {
	path := "PATH=" + os.Getenv("PATH")
	for _, way := range [][2]string{{"", path}, {path + "\x00", "PATH=/nowhere"}} {
		if said, code := launched(t, way[0]+"\x00", []string{way[1]}, "echo", "found"); said != "found\n" || code != 0 {
			t.Errorf("%q: %q, %d", way, said, code)
		}
	}
}

func TestAProgramEndsByItselfAndReadsNothing(t *testing.T) {
	said, code := launched(t, "A=1\x00\x00more", nil, "/bin/sh", "-c", "cat; echo $0; exit 7", "zero")
	if said != "zero\n" || code != 7 {
		t.Errorf("%q, %d", said, code)
	}
}

func TestAProgramThatCannotBeStartedIsToldAsTheEngineTellsIt(t *testing.T) {
	folder := t.TempDir()
	for name, content := range map[string]string{"text": "words", "lost": "#!/no/such/shell\n"} {
		if err := os.WriteFile(folder+"/"+name, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(folder+"/closed", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for program, wanted := range map[string]struct {
		says string
		code int
	}{
		"absent":           {`exec: "absent": executable file not found in $PATH`, NotFound},
		folder + "/absent": {`exec: "` + folder + `/absent": stat ` + folder + `/absent: no such file or directory`, NotFound},
		folder + "/closed": {`exec: "` + folder + `/closed": permission denied`, NotExecutable},
		folder:             {`exec: "` + folder + `": is a directory`, NotExecutable},
		folder + "/text":   {"exec " + folder + "/text: exec format error", NotExecuted},
		folder + "/lost":   {"exec " + folder + "/lost: no such file or directory", NotExecuted},
	} {
		said, code := launched(t, "SECRET=of an app\x00\x00", []string{"PATH=/bin"}, program)
		if said != wanted.says+"\n" || code != wanted.code {
			t.Errorf("%s: %q, %d", program, said, code)
		}
	}
}
