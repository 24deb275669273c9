# What the allocator may do in the account: make and remove this deployment's machines, and keep its state and backups.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  partition = data.aws_partition.current.partition
  account   = data.aws_caller_identity.current.account_id
  ec2       = "arn:${local.partition}:ec2:${data.aws_region.current.name}:${local.account}"
  iam       = "arn:${local.partition}:iam::${local.account}"
  join      = "arn:${local.partition}:secretsmanager:${data.aws_region.current.name}:${local.account}:secret:${var.name}/join/*"
  bucket    = "arn:${local.partition}:s3:::${var.bucket}"

  ours     = { StringEquals = { "aws:ResourceTag/lablink" = var.name } }
  to_be    = { StringEquals = { "aws:RequestTag/lablink" = var.name } }
  bounded  = { StringEquals = { "iam:PermissionsBoundary" = aws_iam_policy.vm.arn } }
  roles    = "${local.iam}:role/${var.name}/vm/*"
  profiles = "${local.iam}:instance-profile/${var.name}/vm/*"

  # Each by what it is for. Whatever tags a machine can only do so while it makes it, or when it is ours already.
  allowed = merge({
    Look = {
      Action = [
        "ec2:DescribeAvailabilityZones", "ec2:DescribeIamInstanceProfileAssociations", "ec2:DescribeImages",
        "ec2:DescribeInstanceAttribute", "ec2:DescribeInstanceCreditSpecifications", "ec2:DescribeInstances",
        "ec2:DescribeInstanceStatus", "ec2:DescribeInstanceTypeOfferings", "ec2:DescribeInstanceTypes",
        "ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeTags",
        "ec2:DescribeVolumes", "ec2:DescribeVolumesModifications", "ec2:DescribeVpcs", "servicequotas:GetServiceQuota", "pricing:GetProducts",
      ]
      Resource = "*"
    }
    MakeMachines = {
      Action    = "ec2:RunInstances"
      Resource  = "${local.ec2}:instance/*"
      Condition = { StringEquals = merge(local.to_be.StringEquals, { "ec2:MetadataHttpTokens" = "required" }) }
    }
    MakeVolumes = {
      Action    = "ec2:RunInstances"
      Resource  = "${local.ec2}:volume/*"
      Condition = merge(local.to_be, { Bool = { "ec2:Encrypted" = "true" } })
    }
    MakeThemHere = {
      Action = "ec2:RunInstances"
      Resource = concat(
        [for subnet in var.vms_subnet_ids : "${local.ec2}:subnet/${subnet}"],
        ["${local.ec2}:security-group/${var.vms_security_group_id}", "${local.ec2}:network-interface/*"],
        ["arn:${local.partition}:ec2:${data.aws_region.current.name}::image/*"],
      )
    }
    TagWhatIsMade = {
      Action    = "ec2:CreateTags"
      Resource  = ["${local.ec2}:instance/*", "${local.ec2}:volume/*"]
      Condition = { StringEquals = { "ec2:CreateAction" = "RunInstances" } }
    }
    ChangeOurs = {
      Action = [
        "ec2:CreateTags", "ec2:DeleteTags", "ec2:GetConsoleOutput", "ec2:ModifyInstanceAttribute", "ec2:ModifyVolume",
        "ec2:RebootInstances", "ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances",
      ]
      Resource  = ["${local.ec2}:instance/*", "${local.ec2}:volume/*"]
      Condition = local.ours
    }
    MakeRoles = {
      Action    = ["iam:CreateRole", "iam:PutRolePolicy"]
      Resource  = local.roles
      Condition = local.bounded
    }
    KeepRoles = {
      Action = [
        "iam:DeleteRole", "iam:DeleteRolePolicy", "iam:GetRole", "iam:GetRolePolicy", "iam:ListAttachedRolePolicies",
        "iam:ListInstanceProfilesForRole", "iam:ListRolePolicies", "iam:TagRole", "iam:UntagRole",
      ]
      Resource = local.roles
    }
    KeepProfiles = {
      Action = [
        "iam:AddRoleToInstanceProfile", "iam:CreateInstanceProfile", "iam:DeleteInstanceProfile",
        "iam:GetInstanceProfile", "iam:RemoveRoleFromInstanceProfile", "iam:TagInstanceProfile",
        "iam:UntagInstanceProfile",
      ]
      Resource = local.profiles
    }
    GiveRoles = {
      Action    = "iam:PassRole"
      Resource  = local.roles
      Condition = { StringEquals = { "iam:PassedToService" = "ec2.amazonaws.com" } }
    }
    InviteMachines = {
      Action = [
        "secretsmanager:CreateSecret", "secretsmanager:DeleteSecret", "secretsmanager:DescribeSecret",
        "secretsmanager:GetResourcePolicy", "secretsmanager:PutSecretValue", "secretsmanager:TagResource",
        "secretsmanager:UntagResource", "secretsmanager:UpdateSecret",
      ]
      Resource = local.join
    }
    # All names, since Terraform looks for workspaces (env:/), and S3 tells who may not list that a new state is forbidden.
    FindStateAndBackups = { Action = "s3:ListBucket", Resource = local.bucket }
    KeepStateAndBackups = {
      Action   = ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
      Resource = ["${local.bucket}/fleet/*", "${local.bucket}/backups/*"]
    }
    },
    var.database == null ? {} : {
      ReadMasterPassword = { Action = "secretsmanager:GetSecretValue", Resource = var.database.master_secret_arn }
      ReadDatabaseLog    = { Action = "logs:FilterLogEvents", Resource = "arn:${local.partition}:logs:${data.aws_region.current.name}:${local.account}:log-group:${var.database.log_group}:*" }
    },
    try(var.database.kms_key_arn, null) == null ? {} : {
      DecryptMasterPassword = {
        Action    = "kms:Decrypt"
        Resource  = var.database.kms_key_arn
        Condition = { StringEquals = { "kms:ViaService" = "secretsmanager.${data.aws_region.current.name}.amazonaws.com" } }
      }
    },
    var.certificate_secret_arn == null ? {} : {
      ReadCertificate = { Action = "secretsmanager:GetSecretValue", Resource = var.certificate_secret_arn }
    },
    var.topic_arn == null ? {} : {
      TellOfAlarms = { Action = "sns:Publish", Resource = var.topic_arn }
  })
}

resource "aws_iam_role" "this" {
  name = "${var.name}-allocator"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "this" {
  #checkov:skip=CKV_AWS_355:What only looks (Look) cannot be narrowed: EC2's Describe calls know no resources.
  name = "allocator"
  role = aws_iam_role.this.id
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [for sid, what in local.allowed : merge({ Sid = sid, Effect = "Allow" }, what)]
  })
}

resource "aws_iam_instance_profile" "this" {
  name = "${var.name}-allocator"
  role = aws_iam_role.this.name
}

# Beyond this no machine's role can go, whatever the allocator, or who has taken it over, writes into one.
resource "aws_iam_policy" "vm" {
  name        = "${var.name}-vm"
  description = "The most that a machine of ${var.name} may do"
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "secretsmanager:GetSecretValue", Resource = local.join }]
  })
}
