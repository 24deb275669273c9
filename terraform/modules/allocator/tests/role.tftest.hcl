# What the allocator's role allows, and what not.
mock_provider "aws" {
  source = "./tests/mocks"
}

run "a_role_for_this_deployment" {
  assert {
    condition     = alltrue([for sid, what in local.allowed : sid == "Look" || alltrue([for resource in flatten([what.Resource]) : resource != "*"])])
    error_message = "only looking around is allowed on everything"
  }
  assert {
    condition     = alltrue([for action in local.allowed.Look.Action : can(regex(":(Describe|Get)", action))])
    error_message = "and looking changes nothing"
  }
  assert {
    condition     = alltrue(flatten([for what in local.allowed : [for action in flatten([what.Action]) : !strcontains(action, "*")]]))
    error_message = "every action is named"
  }
  assert {
    condition     = alltrue([for sid in ["MakeMachines", "MakeVolumes"] : local.allowed[sid].Condition.StringEquals["aws:RequestTag/lablink"] == "lablink-test"]) && local.allowed.ChangeOurs.Condition.StringEquals["aws:ResourceTag/lablink"] == "lablink-test"
    error_message = "machines are made with the deployment's tag, and only such are changed"
  }
  assert {
    condition     = local.allowed.MakeMachines.Condition.StringEquals["ec2:MetadataHttpTokens"] == "required" && local.allowed.MakeVolumes.Condition.Bool["ec2:Encrypted"] == "true"
    error_message = "no machine without IMDSv2, no volume in the clear"
  }
  assert {
    condition     = contains(local.allowed.MakeThemHere.Resource, "arn:aws:ec2:eu-central-1:123456789012:subnet/subnet-1") && !contains(local.allowed.MakeThemHere.Resource, "arn:aws:ec2:eu-central-1:123456789012:subnet/subnet-public")
    error_message = "machines are made in the private subnets only"
  }
  assert {
    condition     = local.allowed.TagWhatIsMade.Condition.StringEquals["ec2:CreateAction"] == "RunInstances"
    error_message = "nothing that is there already is made ours by a tag"
  }
  assert {
    condition     = lookup(aws_instance.this.tags, "lablink", null) == null
    error_message = "the allocator is no machine of the fleet, which it could terminate"
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.this.policy).Statement[*].Sid == keys(local.allowed)
    error_message = "this is the role's policy"
  }
  assert {
    condition     = length(aws_iam_role_policy.this.policy) < 10240
    error_message = "and AWS takes one so long"
  }
}

run "no_role_beyond_the_boundary" {
  assert {
    condition     = local.allowed.MakeRoles.Condition.StringEquals["iam:PermissionsBoundary"] == output.vm_boundary_arn
    error_message = "roles can only be made and filled within the boundary"
  }
  assert {
    condition     = alltrue([for sid in ["MakeRoles", "KeepRoles", "GiveRoles"] : local.allowed[sid].Resource == "arn:aws:iam::123456789012:role/lablink-test/vm/*"])
    error_message = "only machines' roles are touched"
  }
  assert {
    condition     = jsondecode(aws_iam_policy.vm.policy).Statement == [{ Effect = "Allow", Action = "secretsmanager:GetSecretValue", Resource = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:lablink-test/join/*" }]
    error_message = "the most that a machine can ever do is to read a join token"
  }
}

run "state_and_backups_and_no_more_of_the_bucket" {
  assert {
    condition     = local.allowed.KeepStateAndBackups.Resource == ["arn:aws:s3:::lablink-test-bucket/fleet/*", "arn:aws:s3:::lablink-test-bucket/backups/*"]
    error_message = "the platform's own state is not the allocator's to read or write"
  }
}

run "the_master_password_under_a_key_of_ones_own" {
  variables {
    database = { host = "db.example.com", port = 5432, master_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:rds", kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/0", log_group = "/aws/rds/instance/lablink-test/postgresql" }
  }
  assert {
    condition     = local.allowed.DecryptMasterPassword.Resource == var.database.kms_key_arn && local.allowed.DecryptMasterPassword.Condition.StringEquals == { "kms:ViaService" = "secretsmanager.eu-central-1.amazonaws.com" }
    error_message = "the key may be used for secrets, and for nothing else"
  }
}

run "alarms_if_asked" {
  variables {
    topic_arn = "arn:aws:sns:eu-central-1:123456789012:alarms"
  }
  assert {
    condition     = local.allowed.TellOfAlarms == { Action = "sns:Publish", Resource = var.topic_arn }
    error_message = "the topic may be told"
  }
}

run "no_alarms_unless_asked" {
  assert {
    condition     = !anytrue([for sid in ["TellOfAlarms", "ReadCertificate", "ReadMasterPassword", "DecryptMasterPassword", "ReadDatabaseLog"] : contains(keys(local.allowed), sid)])
    error_message = "nothing is allowed that nobody asked for"
  }
}
