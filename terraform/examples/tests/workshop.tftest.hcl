# terraform test -test-directory=examples/tests -filter=examples/tests/workshop.tftest.hcl -var-file=examples/workshop.tfvars
mock_provider "aws" {
  source = "./tests/mocks"
}

run "applied" {
  assert {
    condition     = contains(output.settings, "pool.lease_seconds=14400")
    error_message = "a lease is an afternoon"
  }
}

run "twenty_five_seats" {
  module {
    source = "./fleet"
  }
  variables {
    vms      = { for number in range(1, 26) : format("seat-%02d", number) => {} }
    settings = run.applied.fleet_settings
  }
  assert {
    condition     = length(output.vms) == 25
    error_message = "there are 25 machines"
  }
}
