//go:build nextrelease

package store

// furtherSteps make this build a release that is one step ahead, with which upgrades are
// tested. What the step does to the rows is in no change: whoever shows it was told to
// read everything again.
func furtherSteps() []migration {
	return []migration{{name: "next", sql: `
		ALTER TABLE profiles ADD COLUMN next TEXT NOT NULL DEFAULT '';
		UPDATE profiles SET description = 'as the next release has it' WHERE name = 'default';`}}
}
