package ethereum

import (
	"bytes"
	"testing"
)

const (
	task    = "0x1b293e4eb86240288f63652bfb856771bbb605d76217a27917774cd87ccee4b4"
	wallet  = "0x19e7e376e7c213b7e7e7e46cc70a5dd086daff2a"
	digest  = "0x3e414b345ce4e8d016eff459b112b41de5bc488237863d83187f93ba096a9666"
	private = "0x3333333333333333333333333333333333333333333333333333333333333333"
	// signature is the enclave's of this digest (iexec-worker 9.2).
	signature = "0x8970e0d57f729c3344cf25a673d741360e6be083d85cbb6796a12d1470b54699605e5f77ba1545b2daed129bb591eeb9a8542e906ee487ddb2a0aa72f3f0b1251b"
)

func TestAResultIsSignedAsIExecsEnclavesDo(t *testing.T) {
	key, err := ReadKey(private)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := NewSigner(key, task, wallet)
	if err != nil {
		t.Fatal(err)
	}
	content, _ := Bytes(digest, 32)
	if found := signer.Result(content); found != signature {
		t.Errorf("signed %s", found)
	}
}

func TestWhatIsNoKeyIsRefused(t *testing.T) {
	const order = "0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
	zero := "0x" + string(bytes.Repeat([]byte("0"), 64))
	for _, text := range []string{"", "0x", "0x12", private + "33", order, zero, "0xzz" + private[4:]} {
		if _, err := ReadKey(text); err == nil {
			t.Errorf("%q is a key", text)
		}
	}
}

func TestHexIsReadAsJavaReadsIt(t *testing.T) {
	for text, want := range map[string]string{
		"":          "0x",
		"0x":        "0x",
		"0x1":       "0x01",
		"0x00ff":    "0x00ff",
		"challenge": "0x0cfaefdffe",
		// A login's challenge, which iExec's worker reads as if it were hex.
		"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=": "0xaaec9fffafbfbfefdaffcf9fdfefefeffbfaeffdef7f",
	} {
		if found := Hex(BytesLeniently(text)); found != want {
			t.Errorf("%q is %s, not %s", text, found, want)
		}
	}
}
