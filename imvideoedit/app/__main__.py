from imvideoedit.app.command import main

main()
