from fusible.cli import main

raise SystemExit(main())
